"""The models that are there: list, show, copy, delete, and which are loaded."""

from __future__ import annotations

import asyncio

import msgspec
from aiohttp import hdrs, web

from lhama.daemon.durations import quote
from lhama.daemon.errors import BadRequest, InvalidName, ModelNotFound
from lhama.daemon.protocol import goencode, times
from lhama.daemon.protocol.source import stored_name
from lhama.daemon.protocol.types import CopyRequest, DeleteRequest, ShowRequest
from lhama.daemon.scheduler import LoadedModel
from lhama.daemon.store import ModelName
from lhama.daemon.store import show as showing
from lhama.daemon.store.details import Details, details
from lhama.daemon.web import lookup
from lhama.daemon.web.body import read_json
from lhama.daemon.web.replies import empty_reply, json_reply
from lhama.daemon.web.service import SERVICE

COPILOT = "GitHubCopilotChat/"
"""This client wants to see the name it asked for as the model's base name."""


class RunningModel(msgspec.Struct):
    name: str
    model: str
    size: int
    digest: str
    details: Details
    expires_at: str
    size_vram: int
    context_length: int


async def tags(request: web.Request) -> web.Response:
    store = request.app[SERVICE].store

    def read() -> list[object]:
        return [showing.tags_entry(model) for model in store.list()]

    return json_reply({"models": await asyncio.to_thread(read)})


async def ps(request: web.Request) -> web.Response:
    loaded = request.app[SERVICE].scheduler.loaded()
    return json_reply({"models": [_running(line) for line in loaded]})


def _running(line: LoadedModel) -> RunningModel:
    model = line.model
    return RunningModel(
        name=model.name.short,
        model=model.name.short,
        size=line.size,
        digest=model.digest,
        details=details(model, parent=False),
        expires_at=times.local(line.expires_at),
        size_vram=line.size_vram,
        context_length=line.context,
    )


async def copy(request: web.Request) -> web.Response:
    store = request.app[SERVICE].store
    body = await read_json(request, CopyRequest)
    source = _name(body.source, f"source {quote(body.source)} is invalid")
    target = _name(body.destination, f"destination {quote(body.destination)} is invalid")
    try:
        await asyncio.to_thread(store.copy, source, target)
    except ModelNotFound:
        raise ModelNotFound(f"model {quote(body.source)} not found") from None
    return empty_reply()


async def delete(request: web.Request) -> web.Response:
    store = request.app[SERVICE].store
    body = await read_json(request, DeleteRequest)
    text = body.model or body.name
    if not text.strip():
        raise BadRequest("model is required")
    name = _name(stored_name(text), f"name {quote(text)} is invalid")
    try:
        await asyncio.to_thread(store.delete, name)
    except ModelNotFound:
        raise ModelNotFound(f"model '{text}' not found") from None
    return empty_reply()


async def show(request: web.Request) -> web.Response:
    store = request.app[SERVICE].store
    body = await read_json(request, ShowRequest)
    text = body.model or body.name
    asked = lookup.shown(text)
    copilot = request.headers.get(hdrs.USER_AGENT, "").startswith(COPILOT)

    def read() -> bytes:
        shown = showing.show(
            lookup.find_shown(store, asked),
            verbose=body.verbose,
            system=body.system,
            options=body.options,
            basename=text if copilot else "",
        )
        return goencode.encode(shown)

    return json_reply(await asyncio.to_thread(read))


def _name(text: str, invalid: str) -> ModelName:
    try:
        return ModelName.parse(text)
    except InvalidName:
        raise BadRequest(invalid) from None
