"""One blob on its way from the store to a registry."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlencode

import aiohttp
import structlog
from aiohttp import hdrs
from yarl import URL

from lhama.daemon.errors import InvalidName, RegistryError
from lhama.daemon.registry.failures import Passing
from lhama.daemon.registry.manner import Manner, Tries
from lhama.daemon.registry.remote import Remote
from lhama.daemon.registry.replies import target
from lhama.daemon.registry.threads import in_thread, outlast
from lhama.daemon.store import ModelName
from lhama.daemon.store.manifests import Layer
from lhama.daemon.store.partial import part_size

log = structlog.get_logger(__name__)

T = TypeVar("T")

_BLOCK = 1 << 20
_UPLOAD_LOCATION = "Docker-Upload-Location"


@dataclass(slots=True)
class _Part:
    offset: int
    size: int
    sent: int = 0
    md5: Any = field(default_factory=hashlib.md5)


class Upload:
    """Sends one blob that the registry does not have: announce, parts, finish."""

    def __init__(self, remote: Remote, layer: Layer, path: Path, manner: Manner) -> None:
        """Raises ``OSError`` if the blob is not there."""
        self.total = path.stat().st_size
        self._remote = remote
        self._layer = layer
        self._path = path
        self._manner = manner
        self._mounted = False
        size = part_size(self.total, manner.smallest_part)
        self._parts = [
            _Part(offset, min(size, self.total - offset)) for offset in range(0, self.total, size)
        ]

    @property
    def completed(self) -> int:
        return self.total if self._mounted else sum(part.sent for part in self._parts)

    async def run(self) -> None:
        """Raises ``RegistryError``."""
        location = await self._begin()
        if location is None:
            self._mounted = True
            return
        await self._finish(await self._send_parts(location))

    async def _begin(self) -> URL | None:
        """Where to send the blob; ``None`` if the registry took it from a model it has."""
        query = {}
        if self._layer.source:
            try:
                source = ModelName.parse(self._layer.source)
                query = {
                    "from": f"{source.namespace}/{source.model}",
                    "mount": str(self._layer.digest),
                }
            except InvalidName:
                pass  # a file's path, in models of old versions
        url = self._remote.url("blobs/uploads/" + (f"?{urlencode(query)}" if query else ""))
        async with self._remote.request(hdrs.METH_POST, url) as response:
            return None if response.status == 201 else _next_location(response)

    async def _send_parts(self, location: URL) -> URL:
        """Send all parts; returns where to finish.

        A registry that takes the parts itself takes them in order, each naming the next one's
        place. One that redirects them elsewhere names the next place at once: these go in parallel.
        """
        gate = asyncio.Semaphore(self._manner.parallel)
        elsewhere: list[asyncio.Task[None]] = []

        async def put(url: URL, part: _Part) -> None:
            async with gate:
                await self._retried(partial(self._put, url, part))

        try:
            for part in self._parts:
                location, redirected = await self._retried(partial(self._patch, location, part))
                if redirected is not None:
                    elsewhere.append(asyncio.create_task(put(redirected, part)))
            await asyncio.gather(*elsewhere)
        finally:
            for task in elsewhere:
                task.cancel()
            await outlast(asyncio.gather(*elsewhere, return_exceptions=True))
        return location

    async def _patch(self, url: URL, part: _Part) -> tuple[URL, URL | None]:
        headers = {
            **_content_headers(part.size),
            "X-Redirect-Uploads": "1",
            # Without a unit: Ollama's own form of the header.
            hdrs.CONTENT_RANGE: f"{part.offset}-{part.offset + part.size - 1}",
        }
        async with self._send(hdrs.METH_PATCH, url, headers, part) as response:
            if response.status == 307:
                part.sent = 0
                location = response.headers.get(hdrs.LOCATION, "")
                return _next_location(response), target(response, location)
            _check_sent(part, response)
            return _next_location(response, url), None

    async def _put(self, url: URL, part: _Part) -> None:
        async with self._send(hdrs.METH_PUT, url, _content_headers(part.size), part) as response:
            _check_sent(part, response)

    def _send(
        self, method: str, url: URL, headers: dict[str, str], part: _Part
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        return self._remote.request(
            method,
            url,
            headers=headers,
            content=lambda: self._read(part),
            silence=self._manner.standstill,
        )

    async def _finish(self, location: URL) -> None:
        """Name the whole by its digest, and by the MD5 of its parts' MD5s."""
        md5 = hashlib.md5(
            b"".join(part.md5.digest() for part in self._parts), usedforsecurity=False
        )
        query = urlencode(
            {"digest": str(self._layer.digest), "etag": f"{md5.hexdigest()}-{len(self._parts)}"}
        )
        joint = "&" if location.raw_query_string else "?"
        url = URL(f"{location}{joint}{query}", encoded=True)

        async def put() -> None:
            async with self._remote.request(hdrs.METH_PUT, url, headers=_content_headers(0)):
                pass

        await self._retried(put)

    async def _read(self, part: _Part) -> AsyncIterator[bytes]:
        """A part's bytes, from its beginning however often it is sent."""
        part.sent, part.md5 = 0, hashlib.md5(usedforsecurity=False)
        with self._path.open("rb") as file:
            file.seek(part.offset)
            while part.sent < part.size:
                block = await in_thread(file.read, min(_BLOCK, part.size - part.sent))
                if not block:
                    raise RegistryError(f"blob {self._layer.digest} was cut off while it was sent")
                await in_thread(part.md5.update, block)  # long enough to be felt by other requests
                part.sent += len(block)
                yield block

    async def _retried(self, attempt: Callable[[], Awaitable[T]]) -> T:
        tries = Tries(self._manner)
        while True:
            try:
                return await attempt()
            except Passing as error:
                log.info("upload failed", blob=self._layer.digest.short, reason=error.message)
                await tries.again(error)


def _content_headers(size: int) -> dict[str, str]:
    return {hdrs.CONTENT_TYPE: "application/octet-stream", hdrs.CONTENT_LENGTH: str(size)}


def _check_sent(part: _Part, response: aiohttp.ClientResponse) -> None:
    if part.sent < part.size or response.status >= 300:
        raise Passing(f"unexpected status code {response.status} for a part of a blob")


def _next_location(response: aiohttp.ClientResponse, same: URL | None = None) -> URL:
    location = response.headers.get(_UPLOAD_LOCATION) or response.headers.get(hdrs.LOCATION)
    if not location:
        if same is not None:
            return same
        raise RegistryError("http: no Location header in response")
    return target(response, location)
