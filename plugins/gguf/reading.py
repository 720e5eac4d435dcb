"""Reads the header of a GGUF file.

Model files come from strangers. Every count, length and offset is checked against the file's size
before it is used, and nothing is allocated by a number the file declares. The header is read, not
mapped: a file that shrinks under a mapping kills the process that looks at it.
"""

from __future__ import annotations

import itertools
import math
import os
import stat
import struct
from typing import Any, Final

from lhama.plugins.gguf.header import GGUF, ArrayStub, GGUFError, Tensor, Value
from lhama.plugins.gguf.layout import (
    ARRAY,
    DEFAULT_ALIGNMENT,
    MAGIC,
    SCALARS,
    STRING,
    TENSOR_TYPES,
    U32,
    U64,
)

SHORT_ARRAY: Final = 1024
"""Arrays up to this many elements are always read: per-layer numbers, tags, languages."""

_FIRST_READ: Final = 1 << 23  # holds nearly every header whole
_MAX_HEADER: Final = 1 << 28  # the largest vocabularies of today take about 20 MB
_MAX_STRING: Final = 1 << 24
_MAX_ITEMS: Final = 1 << 24  # array elements walked one by one: bounds the time of a forged header
_MAX_ARRAY_DEPTH: Final = 3
_MAX_ELEMENTS: Final = (1 << 63) - 1


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
        value: int = U32.unpack_from(self.data, self.advance(4, what))[0]
        return value

    def u64(self, what: str) -> int:
        value: int = U64.unpack_from(self.data, self.advance(8, what))[0]
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
            if number == ARRAY:
                types[key], values[key] = self.array(key, 1)
            elif number == STRING:
                types[key], values[key] = "str", self.string(f"the value of {key!r}", "replace")
            elif number in SCALARS:
                types[key], scalar = SCALARS[number]
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
        if number in SCALARS:
            name, scalar = SCALARS[number]
            length = self.count(f"elements of {key!r}", scalar.size)
            at = self.advance(length * scalar.size, what)
            if length > SHORT_ARRAY and not self.vocabulary:
                return f"[{name}]", ArrayStub(name, length)
            self.walk(length)
            return f"[{name}]", list(
                struct.unpack_from(f"<{length}{scalar.format[1:]}", self.data, at)
            )
        if number == STRING:
            length = self.count(f"elements of {key!r}", 8)
            self.walk(length)
            if length > SHORT_ARRAY and not self.vocabulary:
                self.skip_strings(length, what)
                return "[str]", ArrayStub("str", length)
            return "[str]", [self.string(what, "surrogateescape") for _ in range(length)]
        if number == ARRAY:
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
        unpack = U64.unpack_from
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
        elements = math.prod(shape)
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
