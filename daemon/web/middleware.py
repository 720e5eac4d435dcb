"""What every request passes: redirects, CORS, Host check, the error boundary; in Ollama's order."""

from __future__ import annotations

import asyncio
import re
import secrets
import time

import structlog
from aiohttp import hdrs, web

from lhama.daemon import descriptors
from lhama.daemon.errors import Busy, ShuttingDown, Unauthorized
from lhama.daemon.web import access, health, page
from lhama.daemon.web.dialects import DIALECT, NATIVE, failed
from lhama.daemon.web.outgoing import foreseen
from lhama.daemon.web.replies import (
    bad_request_reply,
    empty_reply,
    plain_reply,
    redirect_reply,
)
from lhama.daemon.web.routes import Handler, Match, Table
from lhama.daemon.web.service import Service
from lhama.daemon.web.usage import CALLER, GONE

log = structlog.get_logger(__name__)

CORS: web.RequestKey[dict[str, str]] = web.RequestKey("cors", dict[str, str])
REQUEST_ID: web.RequestKey[str] = web.RequestKey("request id", str)
"""The client's, if it sent one that can stand in a log; else our own."""

X_API_KEY = "X-Api-Key"
"""Where Anthropic's clients put it."""

X_REQUEST_ID = "X-Request-Id"

OPEN = ("/", page.PATH, *health.PATHS)
"""Answered without a key: the greeting, which every client's start asks for, health, and the page,
which asks for a key itself."""

PROBES = (*health.PATHS, "/metrics")
"""Asked all the time: answered while the daemon drains too, and logged for debugging only."""

_PRINTABLE_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")

_PREFLIGHT_VARY = ("Access-Control-Request-Method", "Access-Control-Request-Headers")


class Gate:
    """Decides whether and how a request is answered, and calls its handler."""

    def __init__(self, service: Service, table: Table) -> None:
        self._settings = service.settings
        self._usage = service.usage
        self._lifecycle = service.lifecycle
        self._table = table
        self._check_host = access.is_loopback(service.settings.host)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """aiohttp's handler of every request. What is logged meanwhile names the request."""
        given = request.headers.get(X_REQUEST_ID, "")
        request[REQUEST_ID] = given if _PRINTABLE_ID.fullmatch(given) else secrets.token_hex(8)
        began, status = time.perf_counter(), GONE
        with structlog.contextvars.bound_contextvars(request=request[REQUEST_ID]):
            try:
                reply = await self._reply(request)
                status = reply.status
            finally:
                self._log(request, status, time.perf_counter() - began)
        return reply

    def _log(self, request: web.Request, status: int, seconds: float) -> None:
        caller = {"key": request.get(CALLER, "")} if self._settings.api_keys else {}
        (log.debug if request.path in PROBES else log.info)(
            "request",
            method=request.method,
            path=request.path,
            status=status,
            seconds=round(seconds, 3),
            client=request.remote,
            **caller,
        )

    async def _reply(self, request: web.Request) -> web.StreamResponse:
        if not access.well_formed(request.headers.get(hdrs.HOST, "")):
            return bad_request_reply("malformed Host header")
        match = self._table.match(request.method, request.path)
        if match.redirect:
            query = f"?{request.query_string}" if request.query_string else ""
            return redirect_reply(match.redirect + query, match.status, request.method)
        route = match.route.path if match.route else ""
        try:
            reply = (
                self._origin(request, match)
                or self._host(request, match)
                or self._key(request, match)
                or self._closed(request, match)
                or await self._answer(request, match)
            )
        except (asyncio.CancelledError, ConnectionError):
            self._usage.answered(request, route, GONE)
            raise
        self._usage.answered(request, route, reply.status)
        return reply

    def _key(self, request: web.Request, match: Match) -> web.StreamResponse | None:
        """The API key, where there are keys. ``None`` lets pass."""
        keys = self._settings.api_keys
        if not keys or request.path in OPEN:
            return None
        headers = request.headers
        caller = keys.caller(headers.get(hdrs.AUTHORIZATION, ""), headers.get(X_API_KEY, ""))
        if caller is None:
            dialect = match.route.dialect if match.route else NATIVE
            reply = dialect.reply(Unauthorized("unauthorized: a valid API key is required"))
            reply.headers[hdrs.WWW_AUTHENTICATE] = "Bearer"
            return reply
        request[CALLER] = caller
        return None

    def _closed(self, request: web.Request, match: Match) -> web.StreamResponse | None:
        """The refusal of a daemon that drains, or has no room for its clients. ``None`` lets pass."""
        if request.path in PROBES:
            return None
        if self._lifecycle.draining:
            error: Busy = ShuttingDown()
        elif self._lifecycle.connections() > descriptors.for_connections():
            error = Busy("server busy, please try again: too many connections")
        else:
            return None
        dialect = match.route.dialect if match.route else NATIVE
        reply = dialect.reply(error)
        reply.force_close()
        return reply

    async def _answer(self, request: web.Request, match: Match) -> web.StreamResponse:
        if match.route is not None:
            request[DIALECT] = match.route.dialect
            with self._lifecycle.request():
                return await guarded(match.route.handler, request)
        if match.status == 405:
            return _allowing(match, plain_reply("405 method not allowed", status=405))
        return plain_reply("404 page not found", status=404)

    def _origin(self, request: web.Request, match: Match) -> web.StreamResponse | None:
        """CORS. ``None`` lets the request pass."""
        origin = request.headers.get(hdrs.ORIGIN)
        if not origin or access.same_origin(origin, request.host):
            return None
        origins = self._settings.origins
        if not access.origin_allowed(origin, origins):
            return _refused(match)
        anyone = "*" in origins
        headers: dict[str, str] = {hdrs.ACCESS_CONTROL_ALLOW_ORIGIN: "*" if anyone else origin}
        if request.method != hdrs.METH_OPTIONS:
            if not anyone:
                headers[hdrs.VARY] = "Origin"
            request[CORS] = headers
            return None
        reply = _allowing(match, empty_reply(204))
        reply.headers.update(headers)
        reply.headers[hdrs.ACCESS_CONTROL_ALLOW_METHODS] = access.ALLOWED_METHODS
        reply.headers[hdrs.ACCESS_CONTROL_ALLOW_HEADERS] = access.ALLOWED_HEADERS
        reply.headers[hdrs.ACCESS_CONTROL_MAX_AGE] = str(access.MAX_AGE)
        if not anyone:
            for name in ("Origin", *_PREFLIGHT_VARY):
                reply.headers.add(hdrs.VARY, name)
        return reply

    def _host(self, request: web.Request, match: Match) -> web.StreamResponse | None:
        """The Host check: Ollama's where the daemon is bound to loopback, else ours, unless keys
        keep strangers out. ``None`` lets pass."""
        host = access.split_host(request.headers.get(hdrs.HOST, ""))
        if not self._check_host:
            settings = self._settings
            if settings.api_keys or access.name_trusted(host, settings.hosts):
                return None
            log.warning("unknown Host refused: LHAMA_HOSTS may allow it", host=host)
            return _refused(match)
        if access.address_allowed(host):
            return None
        if not access.name_allowed(host):
            return _refused(match)
        if request.method == hdrs.METH_OPTIONS:
            return _allowing(match, empty_reply(204))
        return None


async def guarded(handler: Handler, request: web.Request) -> web.StreamResponse:
    """Call a handler; an error becomes its dialect's reply, anything unforeseen a 500."""
    try:
        return await handler(request)
    except (asyncio.CancelledError, ConnectionError):
        raise
    except Exception as error:
        return failed(request, foreseen(error, request))


async def on_prepare(request: web.Request, response: web.StreamResponse) -> None:
    """Headers of every reply: its request's id, CORS where it applies, no server name."""
    response.headers.pop(hdrs.SERVER, None)
    if REQUEST_ID in request:
        response.headers[X_REQUEST_ID] = request[REQUEST_ID]
    if CORS in request:
        response.headers.update(request[CORS])


def _refused(match: Match) -> web.Response:
    return _allowing(match, empty_reply(403))


def _allowing(match: Match, reply: web.Response) -> web.Response:
    """The reply, naming the path's methods where the request's is none of them: Ollama's router
    says so before anything else looks at the request."""
    if match.status == 405:
        reply.headers[hdrs.ALLOW] = match.allow
    return reply
