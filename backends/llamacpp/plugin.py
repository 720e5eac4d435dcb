"""Registers the llama.cpp backend; imports nothing native."""

from __future__ import annotations

from collections.abc import Callable

from lhama.backends.llamacpp.backend import LlamaCppBackend
from lhama.plugins.backend import Backend
from lhama.plugins.hookspecs import hookimpl


@hookimpl
def lhama_register_backends(register: Callable[[Backend], None]) -> None:
    """Offer llama.cpp."""
    register(LlamaCppBackend())
