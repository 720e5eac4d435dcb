"""Registers the converter of safetensors; imports nothing heavy."""

from __future__ import annotations

from collections.abc import Callable

from lhama.backends.conversion.converter import SafetensorsConverter
from lhama.plugins.hookspecs import hookimpl
from lhama.plugins.tools import Converter


@hookimpl
def lhama_register_converters(register: Callable[[Converter], None]) -> None:
    """Offer the conversion of Hugging Face's folders."""
    register(SafetensorsConverter())
