"""Qwen 2 and 3: llamas whose heads are turned as transformers has them."""

from __future__ import annotations

from gguf.constants import MODEL_ARCH

from lhama.backends.conversion.families.family import Values
from lhama.backends.conversion.families.llama import Llama


class Qwen2(Llama):
    arch = MODEL_ARCH.QWEN2

    def change(self, name: str, values: Values) -> Values:
        return values


class Qwen3(Qwen2):
    arch = MODEL_ARCH.QWEN3
