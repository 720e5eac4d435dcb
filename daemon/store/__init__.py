"""Ollama's model folder: names, digests, manifests, blobs, create, show.

Everything here blocks on the disk; from the event loop call it through ``asyncio.to_thread``.
"""

from lhama.daemon.store.digests import Digest
from lhama.daemon.store.model import StoredModel
from lhama.daemon.store.names import ModelName
from lhama.daemon.store.store import Store

__all__ = ["Digest", "ModelName", "Store", "StoredModel"]
