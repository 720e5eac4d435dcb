"""Replies with Ollama's exact content types."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from lhama.daemon.errors import Busy, LhamaError, RunnerFailed
from lhama.daemon.protocol import goencode
from lhama.daemon.protocol.replies import error_body, runner_error_text

JSON = "application/json; charset=utf-8"
BARE_JSON = "application/json"
"""Of errors of a stream before its first line, and of progress in one piece."""
NDJSON = "application/x-ndjson"

TRUNCATED = "Lhama-Truncated-Tokens"
"""Header that says how much of a prompt or text was cut to make it fit."""


def json_reply(
    body: Any, *, status: int = 200, content_type: str = JSON, truncated: int = 0
) -> web.Response:
    """A reply struct (or ready bytes) as JSON, without a newline. ``truncated``: tokens cut."""
    encoded = body if isinstance(body, bytes) else goencode.encode(body)
    headers = {"Content-Type": content_type, **truncation(truncated)}
    return web.Response(body=encoded, status=status, headers=headers)


def truncation(tokens: int) -> dict[str, str]:
    return {TRUNCATED: str(tokens)} if tokens else {}


def error_reply(error: LhamaError, *, content_type: str = JSON) -> web.Response:
    reply = json_reply(
        error_body(error_text(error)), status=error.status, content_type=content_type
    )
    return retry(reply, error)


def retry(reply: web.Response, error: LhamaError) -> web.Response:
    """The reply, saying when to ask again where that may help."""
    if isinstance(error, Busy):
        reply.headers["Retry-After"] = "1"
    return reply


def error_text(error: LhamaError) -> str:
    if isinstance(error, RunnerFailed):
        return runner_error_text(error.message, error.status, error.kind, error.details)
    return error.message


def plain_reply(text: str, *, status: int) -> web.Response:
    """Plain text without a charset, as Ollama's router answers."""
    return web.Response(body=text.encode(), status=status, headers={"Content-Type": "text/plain"})


def bad_request_reply(problem: str) -> web.Response:
    """What Go's server says to what is hardly a request, before any router sees it."""
    text, kind = f"400 Bad Request: {problem}", "text/plain; charset=utf-8"
    reply = web.Response(body=text.encode(), status=400, headers={"Content-Type": kind})
    reply.force_close()
    return reply


def empty_reply(status: int = 200) -> web.Response:
    """No body and no content type."""
    return web.Response(status=status)


def redirect_reply(location: str, status: int, method: str) -> web.Response:
    headers = {"Location": location}
    if method not in ("GET", "HEAD"):
        return web.Response(status=status, headers=headers)
    words = {301: "Moved Permanently", 307: "Temporary Redirect"}[status]
    href = location.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&#34;")
    headers["Content-Type"] = "text/html; charset=utf-8"
    return web.Response(
        body=f'<a href="{href}">{words}</a>.\n\n'.encode(), status=status, headers=headers
    )
