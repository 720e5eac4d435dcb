"""A streamed reply: headers with the first bytes, an error in the form its moment allows."""

from __future__ import annotations

from asyncio import Transport
from collections.abc import Awaitable
from typing import cast

from aiohttp import hdrs, web

from lhama.daemon.errors import LhamaError
from lhama.daemon.protocol.replies import error_body
from lhama.daemon.web.replies import BARE_JSON, NDJSON, error_reply, error_text


class LineStream:
    """One streamed reply. Nothing is sent before the first line: an error still has its status."""

    def __init__(self, request: web.Request) -> None:
        self._request = request
        self._response: web.StreamResponse | None = None
        self._socket: Transport | None = None
        """For chunks sent past aiohttp's coroutines, once it has sent the headers."""

    def push(self, lines: bytes) -> Awaitable[None] | None:
        """Send whole lines at once where there is room for them, else return what to await."""
        if not lines:
            return None
        if self._socket is None or self._request.protocol.writing_paused:
            return self.write(lines)
        self._socket.write(b"%x\r\n%b\r\n" % (len(lines), lines))
        return None

    async def write(self, lines: bytes) -> None:
        """Send whole lines; waits while a slow reader's buffer is full."""
        response = self._response or await self._start()
        await response.write(lines)
        await self._request.writer.drain()
        if response.headers.get(hdrs.TRANSFER_ENCODING) == "chunked":  # not for HTTP/1.0
            self._socket = cast(Transport, self._request.transport)

    async def fail(self, error: LhamaError) -> web.StreamResponse:
        """End with an error: a reply of its own, or a last line under a status long sent."""
        if self._response is None:
            return error_reply(error, content_type=BARE_JSON)
        await self.write(error_body(error_text(error)) + b"\n")
        return await self.end()

    async def end(self) -> web.StreamResponse:
        response = self._response or await self._start()
        await response.write_eof()
        return response

    async def _start(self) -> web.StreamResponse:
        self._response = web.StreamResponse(headers={hdrs.CONTENT_TYPE: NDJSON})
        await self._response.prepare(self._request)
        return self._response
