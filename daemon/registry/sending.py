"""A request's body on its way, and how long nobody may take any of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeAlias, TypeVar

from lhama.daemon.registry.failures import Standstill

T = TypeVar("T")

Content: TypeAlias = bytes | Callable[[], AsyncIterator[bytes]] | None
"""A body; what is made piece by piece can be made again for a second try."""

_PIECE = 64 << 10
"""Bytes given to the connection at once: on a slow line that many are signs of life enough."""


class Sending:
    """One exchange's deadline, which every piece of its body that is taken moves.

    aiohttp's own limits begin when a body is sent: a peer that stops to read would hold us for ever.
    """

    def __init__(self, content: Content, first: float, silence: float) -> None:
        """``first``: seconds until something must have been taken; ``silence``: from then on."""
        self.body = self._pieces(content()) if callable(content) else content
        self._sent = not callable(content)
        self._silence = silence
        self._limit = asyncio.timeout(first)

    async def answered(self, request: Awaitable[T]) -> T:
        """What answers the request that ``body`` belongs to. Raises ``TimeoutError``."""
        try:
            async with self._limit:
                return await request
        except TimeoutError as error:
            if self._limit.expired() and not self._sent:
                raise Standstill from error
            raise
        finally:
            self._sent = True

    async def _pieces(self, content: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        async for block in content:
            for at in range(0, len(block), _PIECE):
                yield block[at : at + _PIECE]
                if not self._sent and not self._limit.expired():
                    self._limit.reschedule(asyncio.get_running_loop().time() + self._silence)
        self._sent = True
