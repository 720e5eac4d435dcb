"""One answer on its way out, whatever the protocol: a stream, or a body."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

import structlog
from aiohttp import web

from lhama.daemon.errors import LhamaError
from lhama.daemon.protocol.answer import Answer
from lhama.daemon.web.dialects import STREAM_HEADERS, failed
from lhama.daemon.web.generation import Generation
from lhama.daemon.web.replies import error_text, json_reply, truncation
from lhama.daemon.web.service import SERVICE
from lhama.daemon.web.streaming import BodyStream
from lhama.daemon.wire.messages import Delta, Done, Rendered

log = structlog.get_logger(__name__)


class Outgoing:
    """Sends an answer to the client of ``request``."""

    def __init__(self, request: web.Request, answer: Answer, *, stream: bool) -> None:
        self._request = request
        self._answer = answer
        self._stream = stream
        if stream:
            request[STREAM_HEADERS] = answer.stream_headers

    async def control(self, reason: str) -> web.StreamResponse:
        """The reply where nothing is to be computed."""
        if not (self._stream and self._answer.streams_controls):
            return self._body(self._answer.control(reason))
        stream = self._open()
        await stream.write(self._answer.lines([Delta(0, done=Done(reason, 0, 0, 0, 0))]))
        return await stream.end()

    def debug(self, rendered: Rendered) -> web.Response:
        """The reply that shows the prompt, in one piece even where a stream was asked for."""
        answer = self._answer
        if self._stream and answer.streams_controls:
            return json_reply(answer.debug_event(), content_type=answer.stream_type)
        return self._body(answer.debug(rendered))

    async def answer(self, generation: Generation) -> web.StreamResponse:
        """The answer itself. An error within a stream is told there: its status is long sent."""
        if not self._stream:
            whole: list[Delta] = []
            await generation.run(whole.extend)
            self._count(whole)
            return self._body(self._answer.body(whole), _truncated(whole))
        stream = self._open()

        def send(deltas: list[Delta]) -> Awaitable[None] | None:
            if not stream.begun:
                stream.headers.update(_truncated(deltas))
            self._count(deltas)
            return stream.push(self._answer.lines(deltas))

        try:
            await generation.run(send)
        except (asyncio.CancelledError, ConnectionError):
            raise
        except Exception as problem:
            error = foreseen(problem, self._request)
            if not stream.begun:
                return failed(self._request, error, streaming=True)
            await stream.write(self._answer.broken(error.status, error_text(error)))
        return await stream.end()

    def _count(self, deltas: list[Delta]) -> None:
        if (done := deltas[-1].done) is not None:
            self._request.app[SERVICE].usage.spent(self._request, done)

    def _open(self) -> BodyStream:
        answer = self._answer
        headers = {**answer.stream_headers, "Content-Type": answer.stream_type}
        return BodyStream(self._request, headers)

    def _body(self, body: bytes, headers: dict[str, str] | None = None) -> web.Response:
        reply = json_reply(body, content_type=self._answer.whole_type)
        reply.headers.update(headers or {})
        return reply


def _truncated(deltas: list[Delta]) -> dict[str, str]:
    """The header that says that the prompt was cut, known with an answer's first delta."""
    first = deltas[0]
    count = first.truncated_tokens or (first.done.truncated_tokens if first.done else 0)
    return truncation(count)


def foreseen(error: Exception, request: web.Request) -> LhamaError:
    """The error itself if it has an answer for clients; else it is logged, and a 500."""
    if isinstance(error, LhamaError):
        return error
    log.error("request failed", method=request.method, path=request.path, exc_info=error)
    return LhamaError(f"internal error: {type(error).__name__}: {error}")
