"""The registry client: pull and push. Above the store, which knows nothing of the network."""

from lhama.daemon.registry.client import RegistryClient

__all__ = ["RegistryClient"]
