"""A streamed reply: headers with the first bytes, an error in the form its moment allows."""

from __future__ import annotations

from asyncio import Transport
from collections.abc import Awaitable
from typing import cast

from aiohttp import hdrs, web

from lhama.daemon.errors import LhamaError
from lhama.daemon.protocol.replies import error_body
from lhama.daemon.web.replies import BARE_JSON, NDJSON, error_reply, error_text


class BodyStream:
    """One streamed reply. Nothing is sent before the first part: an error still has its status."""

    def __init__(self, request: web.Request, headers: dict[str, str]) -> None:
        self._request = request
        self.headers = headers
        """May be changed until it has begun."""
        self._response: web.StreamResponse | None = None
        self._socket: Transport | None = None
        """For chunks sent past aiohttp's coroutines, once it has sent the headers."""

    @property
    def begun(self) -> bool:
        """Whether the status and headers are sent."""
        return self._response is not None

    def push(self, part: bytes) -> Awaitable[None] | None:
        """Send whole lines or events at once where there is room, else return what to await."""
        if not part:
            return None
        if self._socket is None or self._request.protocol.writing_paused:
            return self.write(part)
        self._socket.write(b"%x\r\n%b\r\n" % (len(part), part))
        return None

    async def write(self, part: bytes) -> None:
        """Send whole lines or events; waits while a slow reader's buffer is full."""
        response = self._response or await self._start()
        await response.write(part)
        await self._request.writer.drain()
        if response.headers.get(hdrs.TRANSFER_ENCODING) == "chunked":  # not for HTTP/1.0
            self._socket = cast(Transport, self._request.transport)

    async def end(self) -> web.StreamResponse:
        response = self._response or await self._start()
        await response.write_eof()
        return response

    async def _start(self) -> web.StreamResponse:
        self._response = web.StreamResponse(headers=self.headers)
        await self._response.prepare(self._request)
        return self._response


class LineStream(BodyStream):
    """NDJSON, with Ollama's errors."""

    def __init__(self, request: web.Request) -> None:
        super().__init__(request, {hdrs.CONTENT_TYPE: NDJSON})

    async def fail(self, error: LhamaError) -> web.StreamResponse:
        """End with an error: a reply of its own, or a last line under a status long sent."""
        if not self.begun:
            return error_reply(error, content_type=BARE_JSON)
        await self.write(error_body(error_text(error)) + b"\n")
        return await self.end()
