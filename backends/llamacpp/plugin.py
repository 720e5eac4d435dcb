"""Registers llama.cpp: the backend and its quantiser; imports nothing native."""

from __future__ import annotations

from collections.abc import Callable

from lhama.backends.llamacpp.backend import LlamaCppBackend
from lhama.backends.llamacpp.quantizer import LlamaCppQuantizer
from lhama.plugins.backend import Backend
from lhama.plugins.hookspecs import hookimpl
from lhama.plugins.tools import Quantizer


@hookimpl
def lhama_register_backends(register: Callable[[Backend], None]) -> None:
    """Offer llama.cpp."""
    register(LlamaCppBackend())


@hookimpl
def lhama_register_quantizers(register: Callable[[Quantizer], None]) -> None:
    """Offer llama.cpp's quantiser."""
    register(LlamaCppQuantizer())
