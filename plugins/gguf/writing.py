"""Writes GGUF files: small ones, and others again with a key more."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from lhama.plugins.gguf.header import GGUF
from lhama.plugins.gguf.layout import (
    ARRAY,
    COUNTS_END,
    DEFAULT_ALIGNMENT,
    MAGIC,
    SCALARS,
    STRING,
    TENSOR_TYPE_IDS,
    TENSOR_TYPES,
    U32,
    U64,
)

_U32_NUMBER: Final = 4
_I32_NUMBER: Final = 5
_PIECE: Final = 1 << 23
"""Bytes copied at once."""


def write(
    path: str | os.PathLike[str],
    metadata: Mapping[str, str | int | float | bool | Sequence[Any]],
    tensors: Mapping[str, tuple[Sequence[int], str, bytes]],
) -> None:
    """Write a small GGUF (version 3): for tests and for models made in memory.

    ``tensors`` maps a name to its shape (GGUF order), type name and bytes. Numbers become ``u32``
    (``i64`` where that is too small) and ``f32``; a list takes its first element's type, of
    numbers ``i32``.
    """
    parts = [MAGIC, U32.pack(3), U64.pack(len(tensors)), U64.pack(len(metadata))]
    for key, value in metadata.items():
        number, payload = _encode(value)
        parts += [_encode(key)[1], U32.pack(number), payload]
    alignment = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
    assert isinstance(alignment, int)
    pad: Callable[[int], int] = lambda size: -size % alignment  # noqa: E731
    offset = 0
    for name, (shape, type_name, data) in tensors.items():
        kind = TENSOR_TYPES[TENSOR_TYPE_IDS[type_name]]
        if len(data) * kind.block != math.prod(shape) * kind.size:
            raise ValueError(f"{name}: {len(data)} bytes do not fill {list(shape)} of {type_name}")
        parts += [_encode(name)[1], U32.pack(len(shape)), *map(U64.pack, shape)]
        parts += [U32.pack(TENSOR_TYPE_IDS[type_name]), U64.pack(offset)]
        offset += len(data) + pad(len(data))
    parts.append(bytes(pad(sum(map(len, parts)))))
    for _, _, data in tensors.values():
        parts += [data, bytes(pad(len(data)))]
    with open(path, "wb") as file:
        file.writelines(parts)


def add_key(
    header: GGUF, target: str | os.PathLike[str], key: str, value: str | int | bool
) -> None:
    """Write a GGUF file again with one metadata key more, which it must not have.

    Everything else stays, byte for byte. Raises ``OSError``.
    """
    assert key not in header.metadata
    number, payload = _encode(value)
    counts = U64.pack(len(header.tensors)) + U64.pack(len(header.metadata) + 1)
    with open(header.path, "rb") as source, open(target, "wb") as file:
        source.seek(COUNTS_END)
        file.write(MAGIC + U32.pack(header.version) + counts)
        file.write(source.read(header.metadata_end - COUNTS_END))
        file.write(_encode(key)[1] + U32.pack(number) + payload)
        file.write(source.read(header.tensors_end - header.metadata_end))
        file.write(bytes(-file.tell() % header.alignment))
        source.seek(header.data_offset)
        shutil.copyfileobj(source, file, _PIECE)


def _encode(value: str | int | float | bool | Sequence[Any]) -> tuple[int, bytes]:
    """A value's type number and bytes."""
    if isinstance(value, str):
        data = value.encode("utf-8", "surrogateescape")
        return STRING, U64.pack(len(data)) + data
    if isinstance(value, bool):
        return 7, SCALARS[7][1].pack(value)
    if isinstance(value, int):
        number = _U32_NUMBER if 0 <= value < 1 << 32 else 11
        return number, SCALARS[number][1].pack(value)
    if isinstance(value, float):
        return 6, SCALARS[6][1].pack(value)
    number = _encode(value[0])[0] if value else STRING
    if number == _U32_NUMBER:
        number = _I32_NUMBER  # what llama.cpp wants of token types
    if number in SCALARS:
        body = b"".join(map(SCALARS[number][1].pack, value))
    else:
        body = b"".join(_encode(item)[1] for item in value)
    return ARRAY, U32.pack(number) + U64.pack(len(value)) + body
