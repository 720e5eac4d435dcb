"""Models on their way in and out: blobs, create, pull, push."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing

from aiohttp import web

from lhama.daemon.errors import BadRequest, LhamaError, NotFound
from lhama.daemon.protocol import goencode
from lhama.daemon.protocol.replies import Progress
from lhama.daemon.protocol.source import stored_name
from lhama.daemon.protocol.types import CreateRequest, PullRequest, PushRequest
from lhama.daemon.store import Digest, ModelName
from lhama.daemon.store import create as creating
from lhama.daemon.web.body import chunks, read_json
from lhama.daemon.web.replies import BARE_JSON, empty_reply, error_reply, json_reply
from lhama.daemon.web.service import SERVICE
from lhama.daemon.web.streaming import LineStream


async def blob_exists(request: web.Request) -> web.Response:
    digest = _digest(request)
    if not await asyncio.to_thread(request.app[SERVICE].store.blobs.exists, digest):
        raise NotFound(f"blob {digest} not found")
    return empty_reply()


async def blob_upload(request: web.Request) -> web.Response:
    """Store the body. One that is there already is not even read."""
    digest = _digest(request)
    blobs = request.app[SERVICE].store.blobs
    if await asyncio.to_thread(blobs.exists, digest):
        return empty_reply()
    await blobs.receive(chunks(request), digest)
    return empty_reply(201)


async def create(request: web.Request) -> web.StreamResponse:
    service = request.app[SERVICE]
    body = await read_json(request, CreateRequest)
    creating.check(body)
    progress = creating.create(service.store, body, service.registry.pull, service.worker)
    return await report(request, progress, stream=body.stream is not False)


async def report(
    request: web.Request, progress: AsyncIterator[Progress], *, stream: bool
) -> web.StreamResponse:
    """Progress line by line, or its last word alone."""
    lines, last = LineStream(request), None
    async with aclosing(progress) as steps:  # type: ignore[type-var]
        try:
            async for last in steps:
                if stream:
                    await lines.write(goencode.encode(last) + b"\n")
        except LhamaError as error:
            return await lines.fail(error) if stream else error_reply(error, content_type=BARE_JSON)
    return await lines.end() if stream else json_reply(last, content_type=BARE_JSON)


async def pull(request: web.Request) -> web.StreamResponse:
    registry = request.app[SERVICE].registry
    body = await read_json(request, PullRequest)
    name = ModelName.parse(stored_name(body.model or body.name))
    progress = registry.pull(name, insecure=body.insecure)
    return await report(request, progress, stream=body.stream is not False)


async def push(request: web.Request) -> web.StreamResponse:
    registry = request.app[SERVICE].registry
    body = await read_json(request, PushRequest)
    text = body.model or body.name
    if not text:
        raise BadRequest("model is required")
    progress = registry.push(text, insecure=body.insecure)
    return await report(request, progress, stream=body.stream is not False)


def _digest(request: web.Request) -> Digest:
    return Digest.parse(request.path.rpartition("/")[2])
