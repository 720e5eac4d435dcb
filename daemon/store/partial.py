"""A blob on its way in from a registry, on the disk so that it can be resumed after any crash.

The layout is Ollama's, so that either can go on where the other was stopped: the bytes in a sparse
file ``<blob>-partial`` of the full size, and for each part a record ``<blob>-partial-<N>``:
``{"N":0,"Offset":0,"Size":100000000,"Completed":8388608}``. A record never says more than what is
safely in the file.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from errno import ENOSPC
from pathlib import Path
from typing import Final

import msgspec

from lhama.daemon.errors import StoreError
from lhama.daemon.store import files
from lhama.daemon.store.blobs import Blobs
from lhama.daemon.store.digests import Digest

PARTS: Final = 16
SMALLEST_PART: Final = 100_000_000
LARGEST_PART: Final = 1_000_000_000
"""Bytes. Ollama's: a part is a sixteenth of the blob within these bounds."""
_HASH_BYTES: Final = 1 << 20


def part_size(total: int, smallest: int = SMALLEST_PART) -> int:
    return max(smallest, min(total // PARTS, LARGEST_PART))


class Part(msgspec.Struct, rename="pascal"):
    """A range of the blob that one request after the other fills from its beginning."""

    n: int
    offset: int
    size: int
    completed: int = 0

    @property
    def position(self) -> int:
        """Where its next byte belongs in the blob."""
        return self.offset + self.completed

    @property
    def missing(self) -> int:
        return self.size - self.completed


class Partial:
    """The files of one unfinished blob. Methods block on the disk and raise ``StoreError``.

    ``write`` may run in several threads, for different parts; nothing else at the same time as
    ``publish``, ``discard`` or ``close``.
    """

    def __init__(
        self,
        blobs: Blobs,
        digest: Digest,
        total: int,
        *,
        smallest_part: int = SMALLEST_PART,
    ) -> None:
        self.digest = digest
        self.total = total
        self.parts: list[Part] = []
        """In the order of their offsets; filled by ``open``."""
        self._blobs = blobs
        self._path = blobs.path(digest)
        self._file = self._path.with_name(f"{self._path.name}-partial")
        self._part_size = part_size(total, smallest_part)
        self._recorded: dict[int, int] = {}
        """What the records on the disk say, by part."""
        self._fd = -1

    @property
    def completed(self) -> int:
        """Bytes that are in the file."""
        return sum(part.completed for part in self.parts)

    def open(self) -> None:
        """Take up what an earlier attempt left, or lay out the parts.

        Raises ``DiskFull`` at once where the rest would not fit.
        """
        with self._doing("making room for"):
            files.make_folders(self._file.parent)
            self.parts = self._left_over()
            free = shutil.disk_usage(self._file.parent).free
            if free < self.total - self.completed:
                raise OSError(ENOSPC, os.strerror(ENOSPC))
            self.parts = self.parts or self._layout()
            self._fd = os.open(self._file, os.O_RDWR | os.O_CREAT, 0o644)
            os.ftruncate(self._fd, self.total)

    def write(self, part: Part, data: bytes) -> None:
        """Append to a part; the caller keeps within its size."""
        with self._doing("writing"):
            rest = memoryview(data)
            while rest:
                written = os.pwrite(self._fd, rest, part.position)
                part.completed += written
                rest = rest[written:]

    def checkpoint(self) -> None:
        """Bring the records up to what the file holds: a crash costs what comes after."""
        with self._doing("recording"):
            reached = {part.n: part.completed for part in self.parts}
            if reached == self._recorded:
                return
            files.sync(self._fd)
            for part in self.parts:
                completed = reached[part.n]
                if self._recorded.get(part.n) != completed:
                    record = Part(part.n, part.offset, part.size, completed)
                    files.write_durably(self._record(part.n), msgspec.json.encode(record) + b"\n")
                    self._recorded[part.n] = completed

    def hash(self, stopped: threading.Event) -> Digest:
        """The digest of what the file holds; raises ``StoreError`` when ``stopped`` is set."""
        with self._doing("verifying"):
            hasher, at = hashlib.sha256(), 0
            while block := os.pread(self._fd, _HASH_BYTES, at):
                if stopped.is_set():
                    raise StoreError("verifying was cancelled")
                hasher.update(block)
                at += len(block)
            return Digest.from_hex(hasher.hexdigest())

    def publish(self) -> None:
        """Give the complete file its name among the blobs; it must have been verified."""
        with self._doing("storing"):
            files.sync(self._fd)
            files.publish(self._file, self._path)
            # After the rename: records without their file are void, a file without records is lost.
            self._remove_records()

    def discard(self) -> None:
        """Remove everything; the next attempt begins anew."""
        with self._doing("discarding"):
            self._file.unlink(missing_ok=True)
            self._remove_records()
            self.parts, self._recorded = [], {}

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    # ---------------------------------------------------------------------------------- layout

    def _layout(self) -> list[Part]:
        self._remove_records()
        self._recorded = {}
        offsets = range(0, self.total, self._part_size)
        return [
            Part(n, offset, min(self._part_size, self.total - offset))
            for n, offset in enumerate(offsets)
        ]

    def _left_over(self) -> list[Part]:
        """The parts of an earlier attempt; none if they do not make up the blob exactly."""
        try:
            parts = sorted((self._read(path) for path in self._records()), key=lambda p: p.offset)
            present = self._file.stat().st_size
        except (OSError, msgspec.DecodeError):
            return []
        end = 0
        for part in parts:
            if part.offset != end or part.size <= 0 or not 0 <= part.completed <= part.size:
                return []
            end += part.size
        if end != self.total or {part.n for part in parts} != set(range(len(parts))):
            return []
        self._recorded = {part.n: part.completed for part in parts}
        for part in parts:  # the file may be cut off, where another disk held less than it promised
            part.completed = max(0, min(part.completed, present - part.offset))
        return parts

    def _records(self) -> Iterator[Path]:
        return self._file.parent.glob(f"{self._file.name}-*")

    def _record(self, n: int) -> Path:
        return self._file.with_name(f"{self._file.name}-{n}")

    def _read(self, path: Path) -> Part:
        return msgspec.json.decode(path.read_bytes(), type=Part)

    def _remove_records(self) -> None:
        for path in list(self._records()):
            path.unlink(missing_ok=True)

    @contextmanager
    def _doing(self, what: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            doing = f"{what} blob {self.digest.short}"
            raise files.failure(error, doing, self._blobs.root) from error
