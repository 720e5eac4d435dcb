"""Registers the PyTorch backend; imports nothing native."""

from __future__ import annotations

from collections.abc import Callable

from lhama.backends.pytorch.backend import PyTorchBackend
from lhama.plugins.backend import Backend
from lhama.plugins.hookspecs import hookimpl


@hookimpl
def lhama_register_backends(register: Callable[[Backend], None]) -> None:
    """Offer PyTorch."""
    register(PyTorchBackend())
