"""NDJSON to a client: headers with the first line, an error in the form its moment allows."""

from __future__ import annotations

from aiohttp import web

from lhama.daemon.errors import LhamaError
from lhama.daemon.protocol.replies import error_body
from lhama.daemon.web.replies import BARE_JSON, NDJSON, error_reply, error_text


class LineStream:
    """One streamed reply. Nothing is sent before the first line: an error still has its status."""

    def __init__(self, request: web.Request) -> None:
        self._request = request
        self._response: web.StreamResponse | None = None

    async def write(self, lines: bytes) -> None:
        """Send whole lines; waits while a slow reader's buffer is full."""
        if self._response is None:
            self._response = web.StreamResponse(headers={"Content-Type": NDJSON})
            await self._response.prepare(self._request)
        await self._response.write(lines)

    async def fail(self, error: LhamaError) -> web.StreamResponse:
        """End with an error: a reply of its own, or a last line under a status long sent."""
        if self._response is None:
            return error_reply(error, content_type=BARE_JSON)
        await self.write(error_body(error_text(error)) + b"\n")
        return await self.end()

    async def end(self) -> web.StreamResponse:
        if self._response is None:
            self._response = web.StreamResponse(headers={"Content-Type": NDJSON})
            await self._response.prepare(self._request)
        await self._response.write_eof()
        return self._response
