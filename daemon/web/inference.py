"""``/api/generate`` and ``/api/chat``: from a request to a stream of deltas and back to the wire."""

from __future__ import annotations

import time

from aiohttp import web

from lhama.daemon.durations import Duration
from lhama.daemon.errors import BadRequest
from lhama.daemon.protocol import options
from lhama.daemon.protocol.answer import Answer
from lhama.daemon.protocol.answers import ChatAnswer, GenerateAnswer
from lhama.daemon.protocol.options import Options
from lhama.daemon.protocol.types import ChatRequest, GenerateRequest
from lhama.daemon.scheduler import Lease
from lhama.daemon.store import StoredModel
from lhama.daemon.web import lookup, prompts
from lhama.daemon.web.body import read_json
from lhama.daemon.web.generation import Generation
from lhama.daemon.web.outgoing import Outgoing
from lhama.daemon.web.service import SERVICE, Service

MAX_TOP_LOGPROBS = 20


async def generate(request: web.Request) -> web.StreamResponse:
    began = time.monotonic_ns()
    body = await read_json(request, GenerateRequest)
    return await answer_generate(request, body, GenerateAnswer(body.model, began))


async def chat(request: web.Request) -> web.StreamResponse:
    began = time.monotonic_ns()
    body = await read_json(request, ChatRequest)
    return await answer_chat(request, body, ChatAnswer(body.model, began))


async def answer_generate(
    request: web.Request, body: GenerateRequest, answer: Answer
) -> web.StreamResponse:
    """Generate, and answer in the form of ``answer``'s protocol."""
    service = request.app[SERVICE]
    outgoing = Outgoing(request, answer, stream=body.stream is not False)
    _check_logprobs(body.top_logprobs)
    model = await lookup.for_generate(service, body.model)
    if not body.prompt and body.keep_alive == 0:
        await service.scheduler.unload(model)
        return await outgoing.control("unload")
    lookup.refuse_image_models(model)
    if body.raw and (body.template or body.system or body.context):
        raise BadRequest("raw mode does not support template, system, or context")
    think = lookup.think(model, body.model, body.think)
    lookup.require(model, body.model, "generate", insert=bool(body.suffix))
    chosen = _options(service, model, body.options)
    async with await _lease(service, model, chosen, body.keep_alive) as lease:
        if not body.prompt:
            return await outgoing.control("load")
        prompt = prompts.for_generate(body, model, think, lease.context)
        answer.loaded(lease.load_ns)
        if body.debug_render_only:
            return outgoing.debug(await lease.render(prompt))
        generation = Generation(lease, prompt, chosen, body, want_context=not body.raw)
        return await outgoing.answer(generation)


async def answer_chat(
    request: web.Request, body: ChatRequest, answer: Answer, *, relax_thinking: bool = False
) -> web.StreamResponse:
    """Chat, and answer in the form of ``answer``'s protocol.

    ``relax_thinking``: a model that cannot think answers without, where others refuse.
    """
    service = request.app[SERVICE]
    outgoing = Outgoing(request, answer, stream=body.stream is not False)
    _check_logprobs(body.top_logprobs)
    model = await lookup.for_chat(service, body.model)
    if not body.messages and body.keep_alive == 0:
        await service.scheduler.unload(model)
        return await outgoing.control("unload")
    think = lookup.think(model, body.model, body.think, relaxed=relax_thinking)
    lookup.require(model, body.model, "chat", tools=bool(body.tools))
    chosen = _options(service, model, body.options)
    async with await _lease(service, model, chosen, body.keep_alive) as lease:
        if not body.messages:
            return await outgoing.control("load")
        prompt = prompts.for_chat(body, model, think, lease.context)
        answer.loaded(lease.load_ns)
        if body.debug_render_only:
            return outgoing.debug(await lease.render(prompt))
        generation = Generation(lease, prompt, chosen, body, think_first=bool(think))
        return await outgoing.answer(generation)


async def count_prompt(request: web.Request, body: ChatRequest) -> int:
    """Tokens of the whole prompt that ``answer_chat`` would start from. Loads the model."""
    service = request.app[SERVICE]
    model = await lookup.for_chat(service, body.model)
    think = lookup.think(model, body.model, body.think, relaxed=True)
    lookup.require(model, body.model, "chat", tools=bool(body.tools))
    chosen = _options(service, model, body.options)
    async with await _lease(service, model, chosen, body.keep_alive) as lease:
        prompt = prompts.for_chat(body, model, think, lease.context)
        prompt.truncate = False
        return (await lease.render(prompt)).tokens


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
