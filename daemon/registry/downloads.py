"""Downloads that are under way: who wants a blob that is coming already waits for the same one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from lhama.daemon.registry.download import Download
from lhama.daemon.registry.threads import outlast
from lhama.daemon.store import Digest


class Shared:
    """One download and those who wait for it."""

    def __init__(self, download: Download) -> None:
        self.download = download
        self.users = 0
        self.ended = asyncio.Event()
        """Set when the last user has left and nothing of it goes on."""
        self._fetching = asyncio.create_task(download.fetch())
        self._verifying: asyncio.Task[None] | None = None
        self._ending: asyncio.Task[None] | None = None

    @property
    def is_ending(self) -> bool:
        """Whether the last user has left, and it is not over yet."""
        return not self.users and not self.ended.is_set()

    @property
    def failed(self) -> bool:
        """Whether joining it brings nothing but its error."""
        tasks = filter(None, (self._fetching, self._verifying))
        return any(t.done() and (t.cancelled() or t.exception() is not None) for t in tasks)

    async def fetched(self, seconds: float) -> bool:
        """Wait so long for the last byte; raises the download's error."""
        done, _ = await asyncio.wait({self._fetching}, timeout=seconds)
        if done:
            self._fetching.result()
        return bool(done)

    async def verify(self) -> None:
        """Verify and store, once for all; raises as ``Download.verify``."""
        if self._verifying is None:
            self._verifying = asyncio.create_task(self.download.verify())
        await asyncio.shield(self._verifying)

    async def end(self) -> None:
        """Stop what goes on; what arrived stays on the disk."""
        if self._ending is None:
            self._ending = asyncio.create_task(self._end())
        await outlast(self._ending)

    async def _end(self) -> None:
        self.download.stop()
        tasks = [task for task in (self._fetching, self._verifying) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self.download.close()
        self.ended.set()


class Downloads:
    """All of this process, by digest. Lives on the event loop."""

    def __init__(self) -> None:
        self._live: dict[Digest, Shared] = {}

    @asynccontextmanager
    async def lease(self, digest: Digest, start: Callable[[], Download]) -> AsyncIterator[Shared]:
        """Take part in a blob's download, started if there is none; the last to leave ends it."""
        while (shared := self._live.get(digest)) is not None and shared.is_ending:
            await shared.ended.wait()  # it still writes
        if shared is None or shared.failed or shared.ended.is_set():
            shared = self._live[digest] = Shared(start())
        shared.users += 1
        try:
            yield shared
        finally:
            shared.users -= 1
            if not shared.users:
                try:
                    await shared.end()
                finally:
                    if self._live.get(digest) is shared:
                        del self._live[digest]

    async def close(self) -> None:
        """End them all, and wait until what arrived is on the disk."""
        for shared in list(self._live.values()):
            await shared.end()
