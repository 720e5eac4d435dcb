"""Whether the daemon takes requests, and what it is still answering."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Lifecycle:
    """From start to drained: requests are counted in, and none is begun once it drains."""

    def __init__(self) -> None:
        self.draining = False
        self.answering = 0
        """Requests begun and not ended; those that only look (health, metrics) do not count."""
        self.connections: Callable[[], int] = lambda: 0
        """How many are open; known once the server listens."""
        self._idle = asyncio.Event()

    @contextmanager
    def request(self) -> Iterator[None]:
        """Around the answer to one request."""
        self.answering += 1
        try:
            yield
        finally:
            self.answering -= 1
            if self.draining and not self.answering:
                self._idle.set()

    async def drain(self, seconds: float) -> bool:
        """Refuse what is new and wait for what runs; False if ``seconds`` were not enough."""
        self.draining = True
        if not self.answering:
            return True
        try:
            await asyncio.wait_for(self._idle.wait(), seconds)
        except TimeoutError:
            return False
        return True
