"""Where a blob's bytes are: at the registry itself, or where it sends us."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import aiohttp
from aiohttp import hdrs
from yarl import URL

from lhama.daemon.errors import RegistryError
from lhama.daemon.registry.failures import Passing
from lhama.daemon.registry.remote import Remote
from lhama.daemon.registry.replies import NotThere, Refused

_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")


class Source:
    """Ranges of one blob.

    The first request goes through the registry, with our token, and is redirected to where blobs
    lie; the others go there at once, as long as that address is good.
    """

    def __init__(self, remote: Remote, url: URL, total: int, silence: float) -> None:
        self._remote = remote
        self._url = url
        self._total = total
        self._silence = silence
        self._direct: URL | None = None
        self._finding = asyncio.Lock()

    @asynccontextmanager
    async def open(
        self, start: int, stop: int
    ) -> AsyncIterator[tuple[aiohttp.ClientResponse, int]]:
        """A response, and which byte of the blob its body begins with: ``start``, or 0 where
        ranges are not served. The body may go on after ``stop`` and may end before.

        Raises ``Passing`` where another try may help, else ``RegistryError``.
        """
        async with AsyncExitStack() as stack:
            found = None
            if self._direct is None:
                async with self._finding:
                    if self._direct is None:
                        found = await stack.enter_async_context(self._ask(start, stop))
            if found is None:
                found = await stack.enter_async_context(self._ask(start, stop))
            yield found

    @asynccontextmanager
    async def _ask(
        self, start: int, stop: int
    ) -> AsyncIterator[tuple[aiohttp.ClientResponse, int]]:
        direct = self._direct
        headers: dict[str, str] = {hdrs.RANGE: f"bytes={start}-{stop - 1}"}
        try:
            async with self._remote.request(
                hdrs.METH_GET, direct or self._url, headers=headers, silence=self._silence
            ) as response:
                begins = self._first_byte(response, start)
                self._direct = response.url
                yield response, begins
        except Passing:
            self._direct = None
            raise
        except (Refused, NotThere) as error:
            if direct is None:
                raise
            self._direct = None  # signed addresses run out: the registry knows a new one
            raise Passing(error.message) from error

    def _first_byte(self, response: aiohttp.ClientResponse, start: int) -> int:
        coding = response.headers.get(hdrs.CONTENT_ENCODING, "identity")
        if coding.lower() != "identity":
            raise RegistryError(f"the registry packed a blob with {coding}")
        if response.status == 200:
            begins, total = 0, response.content_length
        else:
            given = response.headers.get(hdrs.CONTENT_RANGE, "")
            match = _RANGE.fullmatch(given)
            if response.status != 206 or match is None:
                raise Passing(f"unexpected status code {response.status} {given}".strip())
            begins, total = int(match[1]), None if match[2] == "*" else int(match[2])
            if begins != start:
                raise Passing(f"asked for bytes from {start} on, got them from {begins} on")
        if total not in (None, self._total):
            raise Passing(f"the registry sends {total} bytes of a blob of {self._total}")
        return begins
