"""Reads safetensors files: headers checked to the byte, tensors as numpy arrays.

Not by the ``safetensors`` package, whose numpy side has no bfloat16 (what most checkpoints are in)
and which reads a file whole. The format is a length, a JSON object and the tensors' bytes.
"""

from __future__ import annotations

import math
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeGuard

import numpy as np

from lhama.backends.conversion import jsonfile
from lhama.plugins.backend import UnsupportedModel

_MAX_HEADER: Final = 100_000_000  # the format's own limit, in bytes
_MAX_DIMENSIONS: Final = 4  # what GGUF can hold
_ITEM_BYTES: Final = {
    "F64": 8,
    "F32": 4,
    "F16": 2,
    "BF16": 2,
    "F8_E4M3": 1,
    "F8_E5M2": 1,
    "I64": 8,
    "I32": 4,
    "I16": 2,
    "I8": 1,
    "U64": 8,
    "U32": 4,
    "U16": 2,
    "U8": 1,
    "BOOL": 1,
}
FLOATS: Final = {"F32": np.float32, "F16": np.float16, "BF16": np.uint16}
"""What ``values`` reads, and as what: numpy has no bfloat16, so its bits come as they are."""

INDEX: Final = "model.safetensors.index.json"


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """Where one tensor lies. ``shape`` is as PyTorch has it: the last dimension is contiguous."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    path: Path
    offset: int
    """In bytes from the beginning of the file."""
    nbytes: int

    def values(self) -> np.ndarray[Any, Any]:
        """The tensor in memory, in the type ``FLOATS`` names. Raises ``UnsupportedModel``, ``OSError``."""
        if self.dtype not in FLOATS:
            raise UnsupportedModel(
                f"the tensor {self.name} is stored as {self.dtype}: F32, F16 and BF16 are converted"
            )
        count = math.prod(self.shape)
        read = np.fromfile(self.path, FLOATS[self.dtype], count, offset=self.offset)
        if read.size != count:
            raise UnsupportedModel(f"{self.path.name} was cut short while it was read")
        return read.reshape(self.shape)


def read_folder(folder: Path) -> dict[str, StoredTensor]:
    """All tensors of a checkpoint by name, whether in one file or in shards.

    Raises ``UnsupportedModel`` for a missing shard, a tensor named twice, and a header that lies.
    """
    found: dict[str, StoredTensor] = {}
    for path in _files(folder):
        for tensor in read_header(path):
            if found.setdefault(tensor.name, tensor) is not tensor:
                raise UnsupportedModel(
                    f"the tensor {tensor.name} is there twice, once in {path.name}"
                )
    return found


def _files(folder: Path) -> list[Path]:
    """The files an index names; without an index, all there are."""
    index = folder / INDEX
    if not index.is_file():
        return sorted(folder.glob("*.safetensors"))
    weight_map = jsonfile.read(index).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(n, str) for n in weight_map.values()):
        raise UnsupportedModel(f"{INDEX} has no weight_map")
    paths = [folder / name for name in sorted(set(weight_map.values()))]
    for path in paths:
        if path.parent != folder or not path.is_file():
            raise UnsupportedModel(f"{INDEX} names {path.name}, which is missing")
    return paths


def read_header(path: Path) -> list[StoredTensor]:
    """The tensors of one file, in its order. Raises ``UnsupportedModel`` and ``OSError``."""
    size = os.path.getsize(path)
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else size
        if length > min(_MAX_HEADER, size - 8):
            raise UnsupportedModel(
                f"{path.name} is no safetensors file: its header does not fit into it"
            )
        header = jsonfile.decode(file.read(length), path.name)
    begin = 8 + length
    return [
        _tensor(name, entry, path, begin, size)
        for name, entry in header.items()
        if name != "__metadata__"
    ]


def _tensor(name: str, entry: Any, path: Path, begin: int, size: int) -> StoredTensor:
    what = f"the tensor {name} of {path.name}"
    if not isinstance(entry, dict):
        raise UnsupportedModel(f"{what} is not described by an object")
    dtype, shape, offsets = entry.get("dtype"), entry.get("shape"), entry.get("data_offsets")
    if not isinstance(dtype, str) or dtype not in _ITEM_BYTES:
        raise UnsupportedModel(f"{what} has the unknown type {dtype!r}")
    if not _counts(shape) or len(shape) > _MAX_DIMENSIONS:
        raise UnsupportedModel(f"{what} has the impossible shape {shape!r}")
    if not _counts(offsets) or len(offsets) != 2:
        raise UnsupportedModel(f"{what} has impossible offsets {offsets!r}")
    first, last = offsets
    nbytes = math.prod(shape) * _ITEM_BYTES[dtype]
    if last - first != nbytes:
        raise UnsupportedModel(f"{what} takes {last - first} bytes where its shape needs {nbytes}")
    if begin + last > size:
        raise UnsupportedModel(f"{what} ends at byte {begin + last} of a file of {size}")
    return StoredTensor(name, dtype, tuple(shape), path, begin + first, nbytes)


def _counts(value: Any) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(type(n) is int and 0 <= n < 1 << 48 for n in value)


def float32(tensor: StoredTensor) -> np.ndarray[Any, Any]:
    """A tensor's values as float32, whatever they are stored as."""
    values = tensor.values()
    if tensor.dtype == "BF16":
        return (values.astype(np.uint32) << 16).view(np.float32)
    return values.astype(np.float32, copy=False)
