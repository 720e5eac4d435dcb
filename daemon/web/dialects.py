"""How each protocol words what goes wrong: the one place where an error becomes a reply."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from aiohttp import web

from lhama.daemon.errors import CloudDisabled, LhamaError, Malformed
from lhama.daemon.protocol.anthropic.errors import envelope as anthropic_envelope
from lhama.daemon.protocol.openai.errors import envelope as openai_envelope
from lhama.daemon.web.replies import BARE_JSON, JSON, error_reply, error_text, json_reply, retry


@dataclass(frozen=True, slots=True)
class Dialect:
    """A protocol's errors. ``envelope`` makes a body of status and message."""

    name: str
    envelope: Callable[[int, str], bytes] | None = None
    """``None``: Ollama's own."""

    def reply(self, error: LhamaError, *, streaming: bool = False) -> web.Response:
        """The reply to a failed request; ``streaming``: in place of a stream."""
        if self.envelope is None or isinstance(error, CloudDisabled):
            return error_reply(error, content_type=BARE_JSON if streaming else JSON)
        body = self.envelope(error.status, error_text(error))
        # Ollama refuses a body in one place and rewrites its native handlers' errors in another.
        if isinstance(error, Malformed):
            return json_reply(body, status=error.status)
        reply = json_reply(body + b"\n", status=error.status, content_type=BARE_JSON)
        return retry(reply, error)


def failed(request: web.Request, error: LhamaError, *, streaming: bool = False) -> web.Response:
    """The reply to a request that failed in its handler."""
    reply = request[DIALECT].reply(error, streaming=streaming)
    reply.headers.update(request.get(STREAM_HEADERS, {}))
    return reply


NATIVE = Dialect("native")
OPENAI = Dialect("openai", openai_envelope)
ANTHROPIC = Dialect("anthropic", anthropic_envelope)

STREAM_HEADERS: web.RequestKey[Mapping[str, str]] = web.RequestKey("stream headers", Mapping)
"""Headers of the stream that a client asked for; an error in its place has them too."""

DIALECT: web.RequestKey[Dialect] = web.RequestKey("dialect", Dialect)
"""What the client of a request speaks; set for every request that reaches a handler."""
