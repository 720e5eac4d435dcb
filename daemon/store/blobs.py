"""Blobs: files named by the SHA-256 of their bytes, immutable once there."""

from __future__ import annotations

import asyncio
import hashlib
import os
import threading
import time
from collections.abc import AsyncIterable, Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from lhama.daemon.durations import quote
from lhama.daemon.errors import BadRequest, StoreError
from lhama.daemon.store import files
from lhama.daemon.store.digests import Digest

GRACE_SECONDS: Final = 3600.0
"""Unreferenced blobs younger than this are kept: a create may be about to name them."""
PARTIAL_SECONDS: Final = 7 * 24 * 3600.0
"""Unfinished downloads are kept this long without progress: their pull may be resumed."""
_PARTIAL: Final = "-partial"
_WRITE_BYTES: Final = 1 << 20
_MAX_TEXT: Final = 16 << 20


class Blobs:
    """The folder ``blobs`` of a store."""

    def __init__(self, root: Path) -> None:
        self.root = root
        """The store's folder: error texts name it."""
        self.folder = root / "blobs"

    def path(self, digest: Digest) -> Path:
        return self.folder / digest.filename

    def exists(self, digest: Digest) -> bool:
        return self.path(digest).is_file()

    def size(self, digest: Digest) -> int:
        """In bytes. Raises ``FileNotFoundError``."""
        return self.path(digest).stat().st_size

    def read(self, digest: Digest, most: int = _MAX_TEXT) -> bytes:
        """A small blob whole. Raises ``StoreError`` for one that is missing or too large."""
        try:
            with self.path(digest).open("rb") as file:
                data = file.read(most + 1)
        except FileNotFoundError:
            raise missing(digest) from None
        except OSError as error:
            raise StoreError(f"blob {digest} cannot be read: {error.strerror}") from error
        if len(data) > most:
            raise StoreError(f"blob {digest} is larger than {most} bytes: it cannot be a text")
        return data

    async def receive(self, chunks: AsyncIterable[bytes], expected: Digest | None = None) -> Digest:
        """Store a stream of bytes under its digest; a stream that breaks off leaves nothing.

        Raises ``BadRequest`` if the digest is not ``expected``; the bytes then stay under their
        true one, as with Ollama. Raises ``StoreError`` if the disk is full or read-only.
        """
        upload = _Upload(self)
        try:
            await asyncio.to_thread(upload.open)
            buffer = bytearray()
            async for chunk in chunks:
                buffer += chunk
                if len(buffer) >= _WRITE_BYTES:
                    await asyncio.to_thread(upload.write, bytes(buffer))
                    buffer.clear()
            digest, _ = await asyncio.to_thread(upload.finish, bytes(buffer))
        except BaseException:
            # A cancelled write goes on in its thread: wait for it there, not here.
            await asyncio.shield(asyncio.to_thread(upload.abandon))
            raise
        if expected is not None and str(digest) != expected.spelled:
            raise BadRequest(
                f"digest mismatch, expected {quote(expected.spelled)}, got {quote(str(digest))}"
            )
        return digest

    def write(self, data: bytes) -> tuple[Digest, bool]:
        """Store bytes; tells whether they are new here. Raises ``StoreError``."""
        return self.write_stream([data])

    def write_stream(self, chunks: Iterable[bytes]) -> tuple[Digest, bool]:
        """As ``write``, piece by piece."""
        upload = _Upload(self)
        try:
            upload.open()
            for chunk in chunks:
                upload.write(chunk)
            return upload.finish(b"")
        except BaseException:
            upload.abandon()
            raise

    def take(self, path: Path) -> tuple[Digest, bool]:
        """Make a temporary file of this folder a blob; tells whether it is new here.

        Raises ``StoreError``. The temporary name is gone if it is; else the caller removes it.
        """
        try:
            with path.open("rb") as file:
                digest = Digest.from_hex(hashlib.file_digest(file, "sha256").hexdigest())
                if self.exists(digest):
                    self.touch(digest)
                    return digest, False
                files.sync(file.fileno())
            files.publish(path, self.path(digest))
            return digest, True
        except OSError as error:
            raise files.failure(error, "writing a blob", self.root) from error

    def touch(self, digest: Digest) -> None:
        """Restart a blob's grace period: something is about to name it."""
        try:
            os.utime(self.path(digest))
        except OSError:
            pass  # another user's store: its owner prunes, not we

    def remove(self, digest: Digest) -> None:
        """Raises ``StoreError``; a missing blob is none."""
        try:
            self.path(digest).unlink(missing_ok=True)
        except OSError as error:
            raise files.failure(error, "removing a blob", self.root) from error

    # -------------------------------------------------------------------------------- start-up

    def repair(self) -> None:
        """Rename ``sha256:…`` files of old versions; remove what interrupted uploads left, and
        the remains of downloads that are complete."""
        for entry in self._entries():
            path = Path(entry.path)
            blob, partial, _ = entry.name.partition(_PARTIAL)
            if entry.name.startswith(files.TEMPORARY_PREFIX) or (
                partial and path.with_name(blob).is_file()
            ):
                files.remove(path)
            elif entry.name.startswith("sha256:"):
                path.rename(path.with_name(entry.name.replace(":", "-", 1)))

    def prune(self, in_use: Collection[Digest], *, now: float | None = None) -> list[str]:
        """Remove files older than the grace period that no manifest names; returns their names."""
        names = {digest.filename.lower() for digest in in_use}
        now = time.time() if now is None else now
        removed = []
        for entry in self._entries():
            if not entry.is_file() or entry.name.lower() in names:
                continue
            # Temporary files of a living upload are young, too.
            grace = PARTIAL_SECONDS if _PARTIAL in entry.name else GRACE_SECONDS
            if _last_change(entry) < now - grace:
                os.unlink(entry.path)
                removed.append(entry.name)
        return removed

    def _entries(self) -> list[os.DirEntry[str]]:
        try:
            with os.scandir(self.folder) as entries:
                return list(entries)
        except FileNotFoundError:
            return []


def _last_change(entry: os.DirEntry[str]) -> float:
    """A part's record is as old as the download it belongs to."""
    own = entry.stat(follow_symlinks=False).st_mtime
    blob, partial, _ = entry.name.partition(_PARTIAL)
    try:
        return max(own, Path(entry.path).with_name(blob + partial).lstat().st_mtime)
    except FileNotFoundError:
        return own


def missing(digest: Digest) -> StoreError:
    return StoreError(f"blob {digest} is missing from the store: pull or create the model again")


class _Upload:
    """One blob on its way in: a temporary file and the digest of what it holds.

    Locked, because a cancelled ``receive`` abandons it while a write may still run in a thread.
    """

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs
        self._path = files.temporary(blobs.folder)
        self._hash = hashlib.sha256()
        self._fd = -1
        self._abandoned = False
        self._lock = threading.Lock()

    def open(self) -> None:
        with self._step():
            files.make_folders(self._blobs.folder)
            self._fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)

    def write(self, data: bytes) -> None:
        with self._step():
            self._write(data)

    def finish(self, data: bytes) -> tuple[Digest, bool]:
        """Write the last piece and give the file its name, unless the blob is there already."""
        with self._step():
            self._write(data)
            digest = Digest.from_hex(self._hash.hexdigest())
            if self._blobs.exists(digest):
                self._blobs.touch(digest)
                self._discard()
                return digest, False
            files.sync(self._fd)
            files.publish(self._path, self._blobs.path(digest))
            self._discard()
            return digest, True

    def abandon(self) -> None:
        """Remove the temporary file, if it still is one; later steps do nothing but fail."""
        with self._lock:
            self._abandoned = True
            self._discard()

    @contextmanager
    def _step(self) -> Iterator[None]:
        with self._lock:
            if self._abandoned:
                raise StoreError("the upload was cancelled")
            try:
                yield
            except OSError as error:
                raise files.failure(error, "writing a blob", self._blobs.root) from error

    def _write(self, data: bytes) -> None:
        self._hash.update(data)
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self._fd, rest) :]

    def _discard(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        self._path.unlink(missing_ok=True)
