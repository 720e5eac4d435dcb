"""Routes that need no model: the greeting, the version, and Ollama's account and cloud."""

from __future__ import annotations

from aiohttp import web

from lhama.daemon.errors import BadRequest, CloudDisabled, LhamaError
from lhama.daemon.web.body import read
from lhama.daemon.web.replies import json_reply
from lhama.daemon.web.service import SERVICE

CLOUD_OFF = "ollama cloud is disabled: "


class NoAccount(LhamaError):
    status = 503


class SignedOut(LhamaError):
    status = 401


async def root(request: web.Request) -> web.Response:
    """Clients look for these very words."""
    return web.Response(text="Ollama is running", content_type="text/plain", charset="utf-8")


async def version(request: web.Request) -> web.Response:
    return json_reply({"version": request.app[SERVICE].settings.report_version})


async def status(request: web.Request) -> web.Response:
    return json_reply({"cloud": {"disabled": True, "source": "env"}})


async def me(request: web.Request) -> web.Response:
    raise NoAccount("account unavailable")


async def sign_out(request: web.Request) -> web.Response:
    raise SignedOut("you are not currently signed in")


async def web_search(request: web.Request) -> web.Response:
    await _some_body(request)
    raise CloudDisabled(CLOUD_OFF + "web search is unavailable")


async def web_fetch(request: web.Request) -> web.Response:
    await _some_body(request)
    raise CloudDisabled(CLOUD_OFF + "web fetch is unavailable")


async def recommendations(request: web.Request) -> web.Response:
    return json_reply({"recommendations": []})


async def _some_body(request: web.Request) -> None:
    """Whatever it says. Raises ``BadRequest`` for a body that says nothing."""
    if not (await read(request)).strip():
        raise BadRequest("missing request body")
