"""``/api/generate`` and ``/api/chat``: from a request to a stream of deltas and back to the wire."""

from __future__ import annotations

import time

from aiohttp import web

from lhama.daemon.durations import Duration
from lhama.daemon.errors import BadRequest, LhamaError
from lhama.daemon.protocol import options
from lhama.daemon.protocol.answers import Answer, ChatAnswer, GenerateAnswer
from lhama.daemon.protocol.options import Options
from lhama.daemon.protocol.types import ChatRequest, GenerateRequest
from lhama.daemon.scheduler import Lease
from lhama.daemon.store import StoredModel
from lhama.daemon.web import lookup, prompts
from lhama.daemon.web.body import read_json
from lhama.daemon.web.generation import Generation
from lhama.daemon.web.replies import json_reply
from lhama.daemon.web.service import SERVICE, Service
from lhama.daemon.web.streaming import LineStream
from lhama.daemon.wire.messages import Delta

MAX_TOP_LOGPROBS = 20


async def generate(request: web.Request) -> web.StreamResponse:
    began = time.monotonic_ns()
    service = request.app[SERVICE]
    body = await read_json(request, GenerateRequest)
    _check_logprobs(body.top_logprobs)
    model = await lookup.for_generate(service, body.model)
    if not body.prompt and body.keep_alive == 0:
        await service.scheduler.unload(model)
        return json_reply(GenerateAnswer(body.model).control("unload"))
    lookup.refuse_image_models(model)
    if body.raw and (body.template or body.system or body.context):
        raise BadRequest("raw mode does not support template, system, or context")
    think = lookup.think(model, body.model, body.think)
    lookup.require(model, body.model, "generate", insert=bool(body.suffix))
    chosen = _options(service, model, body.options)
    async with await _lease(service, model, chosen, body.keep_alive) as lease:
        if not body.prompt:
            return json_reply(GenerateAnswer(body.model).control("load"))
        prompt = prompts.for_generate(body, model, think, lease.context)
        answer = GenerateAnswer(body.model, began, lease.load_ns)
        if body.debug_render_only:
            rendered = await lease.render(prompt)
            return json_reply(answer.debug(rendered))
        generation = Generation(lease, prompt, chosen, body, want_context=not body.raw)
        return await _reply(request, generation, answer, stream=body.stream is not False)


async def chat(request: web.Request) -> web.StreamResponse:
    began = time.monotonic_ns()
    service = request.app[SERVICE]
    body = await read_json(request, ChatRequest)
    _check_logprobs(body.top_logprobs)
    model = await lookup.for_chat(service, body.model)
    if not body.messages and body.keep_alive == 0:
        await service.scheduler.unload(model)
        return json_reply(ChatAnswer(body.model).control("unload"))
    think = lookup.think(model, body.model, body.think)
    lookup.require(model, body.model, "chat", tools=bool(body.tools))
    chosen = _options(service, model, body.options)
    async with await _lease(service, model, chosen, body.keep_alive) as lease:
        if not body.messages:
            return json_reply(ChatAnswer(body.model).control("load"))
        prompt = prompts.for_chat(body, model, think, lease.context)
        answer = ChatAnswer(body.model, began, lease.load_ns)
        if body.debug_render_only:
            rendered = await lease.render(prompt)
            return json_reply(answer.debug(rendered))
        generation = Generation(lease, prompt, chosen, body, think_first=bool(think))
        return await _reply(request, generation, answer, stream=body.stream is not False)


def _check_logprobs(top: int) -> None:
    if not 0 <= top <= MAX_TOP_LOGPROBS:
        raise BadRequest(f"top_logprobs must be between 0 and {MAX_TOP_LOGPROBS}")


def _options(service: Service, model: StoredModel, request: dict[str, object]) -> Options:
    merged = options.merge(
        model.parameters, request, context_length=service.settings.context_length
    )
    return merged.floored(vision="vision" in model.capabilities)


async def _lease(
    service: Service, model: StoredModel, chosen: Options, keep_alive: Duration | None
) -> Lease:
    load = lookup.load_request(model, chosen)
    return await service.scheduler.lease(model, load, keep_alive)


async def _reply(
    request: web.Request, generation: Generation, answer: Answer, *, stream: bool
) -> web.StreamResponse:
    if not stream:
        deltas: list[Delta] = []
        await generation.run(deltas.extend)
        return json_reply(answer.body(deltas))
    lines = LineStream(request)
    try:
        await generation.run(lambda deltas: lines.push(answer.lines(deltas)))
    except LhamaError as error:
        return await lines.fail(error)
    return await lines.end()
