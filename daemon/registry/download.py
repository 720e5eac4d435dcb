"""One blob on its way from a registry into the store."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, suppress

import aiohttp
import structlog

from lhama.daemon.errors import DiskFull, RegistryError, StoreError
from lhama.daemon.registry.failures import Passing
from lhama.daemon.registry.manner import Manner, Tries
from lhama.daemon.registry.remote import Remote
from lhama.daemon.registry.source import Source
from lhama.daemon.registry.threads import in_thread, outlast
from lhama.daemon.store.partial import Part, Partial

log = structlog.get_logger(__name__)

_WRITE_BYTES = 1 << 20


class DigestMismatch(RegistryError):
    """A blob whose bytes are not what its digest says."""


class Download:
    """Fetches, verifies and stores one blob: ``fetch`` and then ``verify``, each once."""

    def __init__(
        self,
        partial: Partial,
        remote: Callable[[], AbstractAsyncContextManager[Remote]],
        manner: Manner,
    ) -> None:
        self.completed = 0
        """Bytes that have arrived, now and in earlier attempts; never falls."""
        self._partial = partial
        self._remote = remote
        self._manner = manner
        self._saved = 0
        self._save_now = asyncio.Event()
        self._stopped = threading.Event()

    @property
    def total(self) -> int:
        return self._partial.total

    # -------------------------------------------------------------------------------- fetching

    async def fetch(self) -> None:
        """Bring all bytes to the disk, from where an earlier attempt stopped.

        Raises ``RegistryError`` and ``StoreError``. What arrived is kept for the next attempt,
        unless the disk is full: then others need the room.
        """
        await in_thread(self._partial.open)
        self.completed = self._saved = self._partial.completed
        saving = asyncio.create_task(self._save())
        try:
            missing = [part for part in self._partial.parts if part.missing]
            if missing:
                async with self._remote() as remote:
                    await self._fetch_parts(missing, remote)
        except DiskFull:
            await in_thread(self._partial.discard)
            raise
        finally:
            saving.cancel()
            try:
                await outlast(saving)
            finally:
                await self._checkpoint()

    async def _fetch_parts(self, parts: Sequence[Part], remote: Remote) -> None:
        """All of them, or the first error."""
        url = remote.url(f"blobs/{self._partial.digest}")
        source = Source(remote, url, self.total, self._manner.silence)
        gate = asyncio.Semaphore(self._manner.parallel)
        tasks = [asyncio.create_task(self._fetch_part(part, source, gate)) for part in parts]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await outlast(asyncio.gather(*tasks, return_exceptions=True))

    async def _fetch_part(self, part: Part, source: Source, gate: asyncio.Semaphore) -> None:
        tries = Tries(self._manner)
        async with gate:
            while part.missing:
                before = part.completed
                try:
                    await self._stream(part, source)
                except Passing as error:
                    log.info(
                        "part of a blob failed",
                        blob=self._partial.digest.short,
                        part=part.n,
                        reason=error.message,
                    )
                    await tries.again(error, moved=part.completed > before)

    async def _stream(self, part: Part, source: Source) -> None:
        """One request's worth of a part. Raises ``Passing`` where the body ended too early."""
        async with source.open(part.position, part.offset + part.size) as (response, begins):
            if begins < part.offset:
                raise Passing("the registry serves the blob in one piece only")
            skip = part.position - begins
            buffer, written = bytearray(), time.monotonic()
            try:
                async for chunk in response.content.iter_any():
                    useful = chunk[skip : skip + part.missing - len(buffer)]
                    skip = max(0, skip - len(chunk))
                    buffer += useful
                    self.completed += len(useful)
                    due = time.monotonic() - written >= self._manner.save_seconds
                    if due or len(buffer) >= min(_WRITE_BYTES, part.missing):
                        await self._write(part, buffer)
                        written = time.monotonic()
                    if not part.missing:
                        return
            except TimeoutError as error:
                raise Passing(f"part stalled for {self._manner.silence:.0f} seconds") from error
            except (aiohttp.ClientError, OSError) as error:
                raise Passing(f"unexpected EOF: {error}") from error
            finally:
                if buffer:
                    await self._write(part, buffer)
        raise Passing("unexpected EOF")

    async def _write(self, part: Part, buffer: bytearray) -> None:
        block = bytes(buffer)
        buffer.clear()  # before the wait: it ends by a cancellation, too, and with the block written
        await in_thread(self._partial.write, part, block)
        if self._partial.completed - self._saved >= self._manner.save_bytes:
            self._save_now.set()

    async def _save(self) -> None:
        """Record the progress again and again: a crash costs what came after the last time."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._manner.save_seconds):
                    await self._save_now.wait()
            self._save_now.clear()
            self._saved = self._partial.completed
            await self._checkpoint()

    async def _checkpoint(self) -> None:
        try:
            await in_thread(self._partial.checkpoint)
        except StoreError as error:  # resuming would start earlier: no reason to fail
            log.warning("a download's progress was not recorded", reason=error.message)

    # ------------------------------------------------------------------------------- verifying

    async def verify(self) -> None:
        """Store the blob if its bytes are the right ones.

        Raises ``DigestMismatch`` with everything removed, and ``StoreError``.
        """
        wanted, found = self._partial.digest, await in_thread(self._partial.hash, self._stopped)
        if found.hex != wanted.hex:
            await in_thread(self._partial.discard)
            raise DigestMismatch(
                f"digest mismatch, file must be downloaded again: want {wanted}, got {found}"
            )
        await in_thread(self._partial.publish)

    def stop(self) -> None:
        """Make a ``verify`` that is cancelled end soon."""
        self._stopped.set()

    def close(self) -> None:
        self._partial.close()
