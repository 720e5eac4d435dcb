"""Reads and writes the header of a GGUF file: metadata and the list of tensors.

Model files come from strangers. Every count, length and offset is checked against the file's size
before it is used, and nothing is allocated by a number the file declares. The header is read, not
mapped: a file that shrinks under a mapping kills the process that looks at it.
"""

from __future__ import annotations

import itertools
import os
import shutil
import stat
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, TypeAlias

MAGIC: Final = b"GGUF"
DEFAULT_ALIGNMENT: Final = 32
SHORT_ARRAY: Final = 1024
"""Arrays up to this many elements are always read: per-layer numbers, tags, languages."""

_FIRST_READ: Final = 1 << 23  # holds nearly every header whole
_MAX_HEADER: Final = 1 << 28  # the largest vocabularies of today take about 20 MB
_MAX_STRING: Final = 1 << 24
_MAX_ITEMS: Final = 1 << 24  # array elements walked one by one: bounds the time of a forged header
_MAX_ARRAY_DEPTH: Final = 3
_COUNTS_END: Final = 24  # magic, version and two counts
_U32_NUMBER: Final = 4
_I32_NUMBER: Final = 5
_MAX_ELEMENTS: Final = (1 << 63) - 1


class GGUFError(ValueError):
    """The file is no GGUF, or one that cannot be trusted; the message says what is wrong."""


class TensorType(NamedTuple):
    """How a tensor's elements are stored: ``block`` elements take ``size`` bytes."""

    name: str
    block: int
    size: int


TENSOR_TYPES: Final[dict[int, TensorType]] = {
    0: TensorType("F32", 1, 4),
    1: TensorType("F16", 1, 2),
    2: TensorType("Q4_0", 32, 18),
    3: TensorType("Q4_1", 32, 20),
    6: TensorType("Q5_0", 32, 22),
    7: TensorType("Q5_1", 32, 24),
    8: TensorType("Q8_0", 32, 34),
    10: TensorType("Q2_K", 256, 84),
    11: TensorType("Q3_K", 256, 110),
    12: TensorType("Q4_K", 256, 144),
    13: TensorType("Q5_K", 256, 176),
    14: TensorType("Q6_K", 256, 210),
    16: TensorType("IQ2_XXS", 256, 66),
    17: TensorType("IQ2_XS", 256, 74),
    18: TensorType("IQ3_XXS", 256, 98),
    19: TensorType("IQ1_S", 256, 50),
    20: TensorType("IQ4_NL", 32, 18),
    21: TensorType("IQ3_S", 256, 110),
    22: TensorType("IQ2_S", 256, 82),
    23: TensorType("IQ4_XS", 256, 136),
    24: TensorType("I8", 1, 1),
    25: TensorType("I16", 1, 2),
    26: TensorType("I32", 1, 4),
    27: TensorType("I64", 1, 8),
    28: TensorType("F64", 1, 8),
    29: TensorType("IQ1_M", 256, 56),
    30: TensorType("BF16", 1, 2),
    34: TensorType("TQ1_0", 256, 54),
    35: TensorType("TQ2_0", 256, 66),
    39: TensorType("MXFP4", 32, 17),
}
"""The tensor types of ggml by their number in the file; Q8_1 and Q8_K exist in memory only."""

TENSOR_TYPE_IDS: Final[dict[str, int]] = {t.name: number for number, t in TENSOR_TYPES.items()}

_STRING: Final = 8
_ARRAY: Final = 9
_SCALARS: Final[dict[int, tuple[str, struct.Struct]]] = {
    0: ("u8", struct.Struct("<B")),
    1: ("i8", struct.Struct("<b")),
    2: ("u16", struct.Struct("<H")),
    3: ("i16", struct.Struct("<h")),
    4: ("u32", struct.Struct("<I")),
    5: ("i32", struct.Struct("<i")),
    6: ("f32", struct.Struct("<f")),
    7: ("bool", struct.Struct("<?")),
    10: ("u64", struct.Struct("<Q")),
    11: ("i64", struct.Struct("<q")),
    12: ("f64", struct.Struct("<d")),
}
_U32: Final = struct.Struct("<I")
_U64: Final = struct.Struct("<Q")


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
        return _product(self.shape)


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


class _ReadOnError(Exception):
    """The header goes on behind what has been read so far, up to ``end``."""

    def __init__(self, end: int) -> None:
        self.end = end


def read(path: str | os.PathLike[str], *, vocabulary: bool = False) -> GGUF:
    """The header of the GGUF file at ``path``; ``vocabulary`` reads the long arrays too.

    Raises ``GGUFError`` for a file that is none or cannot be trusted, ``OSError`` if it cannot be
    read. Blocks for some milliseconds; with the vocabulary for some tens of them.
    """
    # O_NONBLOCK: opening a FIFO must not wait for a writer.
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise GGUFError("not a GGUF file: not a regular file")
        size = min(status.st_size, _FIRST_READ)
        while True:
            data = os.pread(fd, size, 0)
            if len(data) < size:
                raise GGUFError("the file shrank while it was read")
            try:
                return _Header(data, status.st_size, vocabulary).read(os.fspath(path))
            except _ReadOnError as more:
                if more.end > _MAX_HEADER:
                    raise GGUFError(f"header larger than {_MAX_HEADER} bytes") from None
                size = min(status.st_size, _MAX_HEADER, max(4 * size, more.end))
    finally:
        os.close(fd)


class _Header:
    """A cursor over the bytes read so far."""

    def __init__(self, data: bytes, file_size: int, vocabulary: bool) -> None:
        self.data = data
        self.file_size = file_size
        self.vocabulary = vocabulary
        self.at = 0
        self.items = 0

    def read(self, path: str) -> GGUF:
        if self.data[:4] != MAGIC:
            raise GGUFError("not a GGUF file: the magic bytes are missing")
        self.at = 4
        version = self.u32("version")
        if version in (0x01000000, 0x02000000, 0x03000000):
            raise GGUFError("big-endian GGUF files are not supported: convert the model again")
        if version not in (2, 3):
            raise GGUFError(f"GGUF version {version} is not supported: convert the model again")
        tensor_count = self.count("tensors", 24)
        metadata, types = self.metadata(self.count("metadata keys", 13))
        alignment = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
        if not isinstance(alignment, int) or alignment < 8 or alignment & (alignment - 1):
            raise GGUFError(f"bad alignment {alignment!r}: must be a power of two, 8 or more")
        metadata_end = self.at
        infos = [self.tensor_info() for _ in range(tensor_count)]
        data_offset = (self.at + alignment - 1) // alignment * alignment
        tensors: dict[str, Tensor] = {}
        for name, number, shape, relative in infos:
            tensor = self.place(name, number, shape, relative, alignment, data_offset)
            if tensors.setdefault(name, tensor) is not tensor:
                raise GGUFError(f"duplicate tensor {name!r}")
        return GGUF(
            path,
            version,
            metadata,
            types,
            tensors,
            alignment,
            data_offset,
            self.file_size,
            metadata_end,
            self.at,
        )

    # ------------------------------------------------------------------------------ primitives

    def advance(self, size: int, what: str) -> int:
        """Step over ``size`` bytes; returns where they begin."""
        at, end = self.at, self.at + size
        if end > len(self.data):
            if end > self.file_size:
                raise GGUFError(f"truncated: {what} ends beyond the file ({self.file_size} bytes)")
            raise _ReadOnError(end)
        self.at = end
        return at

    def u32(self, what: str) -> int:
        value: int = _U32.unpack_from(self.data, self.advance(4, what))[0]
        return value

    def u64(self, what: str) -> int:
        value: int = _U64.unpack_from(self.data, self.advance(8, what))[0]
        return value

    def count(self, what: str, least: int) -> int:
        """A number of items of at least ``least`` bytes each, which must fit into the file."""
        value = self.u64(f"the number of {what}")
        if value * least > self.file_size - self.at:
            raise GGUFError(f"truncated: {value} {what} cannot fit into {self.file_size} bytes")
        return value

    def string(self, what: str, errors: str = "strict", most: int = _MAX_STRING) -> str:
        size = self.u64(what)
        if size > most and self.at + size <= self.file_size:
            raise GGUFError(f"{what} is too long ({size} bytes)")
        at = self.advance(size, what)
        try:
            return self.data[at : at + size].decode("utf-8", errors)
        except UnicodeDecodeError:
            raise GGUFError(f"{what} is not valid UTF-8") from None

    def walk(self, length: int) -> None:
        self.items += length
        if self.items > _MAX_ITEMS:
            raise GGUFError(f"more than {_MAX_ITEMS} array elements in the metadata")

    # -------------------------------------------------------------------------------- metadata

    def metadata(self, count: int) -> tuple[dict[str, Value], dict[str, str]]:
        values: dict[str, Value] = {}
        types: dict[str, str] = {}
        for _ in range(count):
            key = self.string("a metadata key", most=65535)
            if key in values:
                raise GGUFError(f"duplicate metadata key {key!r}")
            number = self.u32(f"the type of {key!r}")
            if number == _ARRAY:
                types[key], values[key] = self.array(key, 1)
            elif number == _STRING:
                types[key], values[key] = "str", self.string(f"the value of {key!r}", "replace")
            elif number in _SCALARS:
                types[key], scalar = _SCALARS[number]
                at = self.advance(scalar.size, f"the value of {key!r}")
                values[key] = scalar.unpack_from(self.data, at)[0]
            else:
                raise GGUFError(f"unknown metadata type {number} of {key!r}")
        return values, types

    def array(self, key: str, depth: int) -> tuple[str, list[Any] | ArrayStub]:
        """An array's type and its elements, or a stub for a long one."""
        what = f"the array {key!r}"
        if depth > _MAX_ARRAY_DEPTH:
            raise GGUFError(f"arrays nested too deep in {key!r}")
        number = self.u32(what)
        if number in _SCALARS:
            name, scalar = _SCALARS[number]
            length = self.count(f"elements of {key!r}", scalar.size)
            at = self.advance(length * scalar.size, what)
            if length > SHORT_ARRAY and not self.vocabulary:
                return f"[{name}]", ArrayStub(name, length)
            self.walk(length)
            return f"[{name}]", list(
                struct.unpack_from(f"<{length}{scalar.format[1:]}", self.data, at)
            )
        if number == _STRING:
            length = self.count(f"elements of {key!r}", 8)
            self.walk(length)
            if length > SHORT_ARRAY and not self.vocabulary:
                self.skip_strings(length, what)
                return "[str]", ArrayStub("str", length)
            return "[str]", [self.string(what, "surrogateescape") for _ in range(length)]
        if number == _ARRAY:
            length = self.count(f"elements of {key!r}", 12)
            self.walk(length)
            inner = [self.array(key, depth + 1) for _ in range(length)]
            name = inner[0][0] if inner else "[]"
            if length > SHORT_ARRAY and not self.vocabulary:
                return f"[{name}]", ArrayStub(name, length)
            return f"[{name}]", [value for _, value in inner]
        raise GGUFError(f"unknown element type {number} of {what}")

    def skip_strings(self, length: int, what: str) -> None:
        """Step over strings without making them: a vocabulary has hundreds of thousands."""
        data, at = self.data, self.at
        limit = len(data) - 8
        unpack = _U64.unpack_from
        for _ in itertools.repeat(None, length):
            if at > limit:
                break
            at += 8 + unpack(data, at)[0]
        else:
            self.advance(at - self.at, what)
            return
        self.advance(at + 8 - self.at, what)
        raise AssertionError("unreachable: the loop ends early only behind what was read")

    # --------------------------------------------------------------------------------- tensors

    def tensor_info(self) -> tuple[str, int, tuple[int, ...], int]:
        name = self.string("a tensor's name", most=65535)
        what = f"the tensor {name!r}"
        dimensions = self.u32(what)
        if not 1 <= dimensions <= 4:
            raise GGUFError(f"{what} has {dimensions} dimensions: 1 to 4 are possible")
        shape = struct.unpack_from(f"<{dimensions}Q", self.data, self.advance(8 * dimensions, what))
        return name, self.u32(what), shape, self.u64(what)

    def place(
        self,
        name: str,
        number: int,
        shape: tuple[int, ...],
        relative: int,
        alignment: int,
        data_offset: int,
    ) -> Tensor:
        kind = TENSOR_TYPES.get(number)
        if kind is None:
            raise GGUFError(f"the tensor {name!r} has an unknown type ({number})")
        elements = _product(shape)
        if elements == 0 or elements > _MAX_ELEMENTS:
            raise GGUFError(f"the tensor {name!r} has an impossible shape {list(shape)}")
        if shape[0] % kind.block:
            raise GGUFError(
                f"rows of the tensor {name!r} ({shape[0]} elements) do not divide into "
                f"blocks of {kind.name} ({kind.block})"
            )
        if relative % alignment:
            raise GGUFError(f"the tensor {name!r} is not aligned to {alignment} bytes")
        nbytes = elements // kind.block * kind.size
        offset = data_offset + relative
        if offset + nbytes > self.file_size:
            raise GGUFError(
                f"truncated: the tensor {name!r} ends at byte {offset + nbytes} "
                f"of a file of {self.file_size}"
            )
        return Tensor(name, number, kind.name, shape, offset, nbytes)


def _product(shape: Sequence[int]) -> int:
    product = 1
    for extent in shape:
        product *= extent
    return product


# --------------------------------------------------------------------------------------- writing


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
    parts = [MAGIC, _U32.pack(3), _U64.pack(len(tensors)), _U64.pack(len(metadata))]
    for key, value in metadata.items():
        number, payload = _encode(value)
        parts += [_encode(key)[1], _U32.pack(number), payload]
    alignment = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
    assert isinstance(alignment, int)
    pad: Callable[[int], int] = lambda size: -size % alignment  # noqa: E731
    offset = 0
    for name, (shape, type_name, data) in tensors.items():
        kind = TENSOR_TYPES[TENSOR_TYPE_IDS[type_name]]
        if len(data) * kind.block != _product(shape) * kind.size:
            raise ValueError(f"{name}: {len(data)} bytes do not fill {list(shape)} of {type_name}")
        parts += [_encode(name)[1], _U32.pack(len(shape)), *map(_U64.pack, shape)]
        parts += [_U32.pack(TENSOR_TYPE_IDS[type_name]), _U64.pack(offset)]
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
    counts = _U64.pack(len(header.tensors)) + _U64.pack(len(header.metadata) + 1)
    with open(header.path, "rb") as source, open(target, "wb") as file:
        source.seek(_COUNTS_END)
        file.write(MAGIC + _U32.pack(header.version) + counts)
        file.write(source.read(header.metadata_end - _COUNTS_END))
        file.write(_encode(key)[1] + _U32.pack(number) + payload)
        file.write(source.read(header.tensors_end - header.metadata_end))
        file.write(bytes(-file.tell() % header.alignment))
        source.seek(header.data_offset)
        shutil.copyfileobj(source, file, _FIRST_READ)


def _encode(value: str | int | float | bool | Sequence[Any]) -> tuple[int, bytes]:
    """A value's type number and bytes."""
    if isinstance(value, str):
        data = value.encode("utf-8", "surrogateescape")
        return _STRING, _U64.pack(len(data)) + data
    if isinstance(value, bool):
        return 7, _SCALARS[7][1].pack(value)
    if isinstance(value, int):
        number = _U32_NUMBER if 0 <= value < 1 << 32 else 11
        return number, _SCALARS[number][1].pack(value)
    if isinstance(value, float):
        return 6, _SCALARS[6][1].pack(value)
    number = _encode(value[0])[0] if value else _STRING
    if number == _U32_NUMBER:
        number = _I32_NUMBER  # what llama.cpp wants of token types
    if number in _SCALARS:
        body = b"".join(map(_SCALARS[number][1].pack, value))
    else:
        body = b"".join(_encode(item)[1] for item in value)
    return _ARRAY, _U32.pack(number) + _U64.pack(len(value)) + body
