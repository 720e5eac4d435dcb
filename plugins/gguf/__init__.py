"""GGUF files: their headers read and checked, small ones written."""

from __future__ import annotations

from lhama.plugins.gguf.header import GGUF, ArrayStub, GGUFError, Tensor, Value
from lhama.plugins.gguf.layout import (
    DEFAULT_ALIGNMENT,
    MAGIC,
    TENSOR_TYPE_IDS,
    TENSOR_TYPES,
    TensorType,
)
from lhama.plugins.gguf.reading import SHORT_ARRAY, read
from lhama.plugins.gguf.writing import add_key, write

__all__ = [
    "DEFAULT_ALIGNMENT",
    "GGUF",
    "MAGIC",
    "SHORT_ARRAY",
    "TENSOR_TYPES",
    "TENSOR_TYPE_IDS",
    "ArrayStub",
    "GGUFError",
    "Tensor",
    "TensorType",
    "Value",
    "add_key",
    "read",
    "write",
]
