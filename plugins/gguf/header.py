"""What a GGUF file says of itself: metadata and the list of tensors."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, TypeAlias


class GGUFError(ValueError):
    """The file is no GGUF, or one that cannot be trusted; the message says what is wrong."""


@dataclass(frozen=True, slots=True)
class ArrayStub:
    """A long array that was stepped over; read with ``vocabulary=True`` to have it."""

    element_type: str
    length: int


Value: TypeAlias = str | int | float | bool | list[Any] | ArrayStub


@dataclass(frozen=True, slots=True)
class Tensor:
    """Where one tensor lies. ``shape`` is in GGUF's order: the first dimension is contiguous."""

    name: str
    type: int
    type_name: str
    shape: tuple[int, ...]
    offset: int
    """In bytes from the beginning of the file."""
    nbytes: int

    @property
    def elements(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True)
class GGUF:
    """A file's header, checked."""

    path: str
    version: int
    metadata: dict[str, Value]
    """In the file's order. Bytes of an array's strings that are no UTF-8 are surrogate-escaped
    (``s.encode("utf-8", "surrogateescape")`` gives them back); elsewhere they are U+FFFD."""
    types: dict[str, str]
    """Each key's stored type: ``u32``, ``f32``, ``str`` …, ``[str]`` for an array of strings."""
    tensors: dict[str, Tensor]
    """In the file's order."""
    alignment: int
    data_offset: int
    file_size: int
    metadata_end: int
    """Where the list of tensors begins, in bytes."""
    tensors_end: int
    """Where the list of tensors ends; ``data_offset`` is this, aligned."""
    parameter_count: int = field(init=False)
    """Elements of all tensors together."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "parameter_count", sum(t.elements for t in self.tensors.values()))

    @property
    def architecture(self) -> str:
        """``general.architecture``, or an empty string."""
        return self.get_str("general.architecture")

    def key(self, name: str) -> str:
        """The architecture's own key: ``llama.block_count`` for ``block_count``."""
        return f"{self.architecture}.{name}"

    def get_str(self, key: str, default: str = "") -> str:
        value = self.metadata.get(key)
        return value if isinstance(value, str) else default

    def get_int(self, key: str, default: int = 0) -> int:
        value = self.metadata.get(key)
        return value if isinstance(value, int) and not isinstance(value, bool) else default

    def get_float(self, key: str, default: float = 0.0) -> float:
        value = self.metadata.get(key)
        return float(value) if isinstance(value, int | float) else default

    def get_bool(self, key: str, default: bool = False) -> bool:
        value = self.metadata.get(key)
        return value if isinstance(value, bool) else default

    def get_list(self, key: str) -> list[Any]:
        """An array's elements; empty if there is none or it was stepped over."""
        value = self.metadata.get(key)
        return value if isinstance(value, list) else []

    def array_length(self, key: str) -> int:
        """An array's length, read or stepped over; 0 if there is none."""
        value = self.metadata.get(key)
        return value.length if isinstance(value, ArrayStub) else len(self.get_list(key))
