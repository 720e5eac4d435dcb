"""Tensors of a GGUF file, dequantised one by one."""

from __future__ import annotations

import mmap
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

import gguf.quants
import numpy as np
import torch
from gguf.constants import GGMLQuantizationType

from lhama.plugins.backend import BackendError, UnsupportedModel
from lhama.plugins.gguf import GGUF, Tensor

if TYPE_CHECKING:
    from lhama.backends.pytorch.adapters import Adapter, Change

_PIECE: Final = 1 << 18
"""Elements dequantised at once."""


class Weights:
    """Reads tensors out of one mapping of the file. Each is taken once; shapes are torch's."""

    def __init__(
        self,
        header: GGUF,
        device: torch.device,
        dtype: torch.dtype,
        loaded: Callable[[int], None] = lambda nbytes: None,
        adapters: Sequence[Adapter] = (),
    ) -> None:
        """``loaded`` is told each tensor's size in the file, in bytes."""
        self._adapters = adapters
        self._header = header
        self._device = device
        self._dtype = dtype
        self._loaded = loaded
        try:
            with open(header.path, "rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            raise BackendError(f"cannot map {header.path}: {error}") from error

    def __contains__(self, name: str) -> bool:
        return name in self._header.tensors

    def changes(self, name: str, outputs: int, inputs: int) -> tuple[Change, ...]:
        """What adapters add to the products with the matrix ``name``."""
        found = (adapter.change(name, outputs, inputs) for adapter in self._adapters)
        return tuple(change for change in found if change is not None)

    def shape(self, name: str) -> tuple[int, ...]:
        """Of a tensor the file has, as torch counts."""
        return self._header.tensors[name].shape[::-1]

    def take(self, name: str, *shape: int, dtype: torch.dtype | None = None) -> torch.Tensor:
        """The tensor ``name`` on the device. Raises ``UnsupportedModel`` unless of that shape."""
        tensor = self._header.tensors.get(name)
        if tensor is None:
            raise UnsupportedModel(f"the tensor {name!r} is missing")
        found = tensor.shape[::-1]
        if found != shape:
            raise UnsupportedModel(f"the tensor {name!r} has the shape {found}, not {shape}")
        values = torch.from_numpy(self._dequantise(tensor).reshape(shape))
        self._loaded(tensor.nbytes)
        return values.to(self._device, dtype or self._dtype)

    def vector(self, name: str, size: int) -> torch.Tensor | None:
        """A vector in float32; ``None`` if the file has none of that name."""
        return self.take(name, size, dtype=torch.float32) if name in self else None

    def _dequantise(self, tensor: Tensor) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        """Float32 values by ggml's tables, which ``gguf.quants`` has."""
        if tensor.offset + tensor.nbytes > len(self._map):
            raise BackendError(f"{self._header.path} was cut short while it was read")
        raw = np.frombuffer(self._map, np.uint8, tensor.nbytes, tensor.offset)
        rows = raw.reshape(tensor.elements // tensor.shape[0], -1)
        values = np.empty((len(rows), tensor.shape[0]), np.float32)
        # In pieces that stay in the processor's cache: the tables' intermediates are large.
        step = max(1, _PIECE // tensor.shape[0])
        for begin in range(0, len(rows), step):
            values[begin : begin + step] = gguf.quants.dequantize(
                rows[begin : begin + step], GGMLQuantizationType(tensor.type)
            )
        return values
