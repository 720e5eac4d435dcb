"""``/api/embed`` and its predecessor ``/api/embeddings``."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from lhama.daemon.errors import BadRequest, LhamaError, RunnerFailed
from lhama.daemon.protocol import goencode, options, vectors
from lhama.daemon.protocol.replies import EmbeddingReply, EmbedReply
from lhama.daemon.protocol.types import EmbeddingRequest, EmbedRequest
from lhama.daemon.web import lookup
from lhama.daemon.web.body import read_json
from lhama.daemon.web.replies import error_text, json_reply
from lhama.daemon.web.service import SERVICE, Service

RAW_FAMILIES = frozenset({"bert", "nomic-bert"})
"""Families whose vectors the older route gives as the model made them."""


@dataclass(frozen=True, slots=True)
class Embedded:
    """Vectors as the model made them, and what they took."""

    vectors: Sequence[Sequence[float]] = ()
    tokens: int = 0
    load_ns: int = 0

    def finished(self, dimensions: int) -> list[list[float]]:
        """At unit length, cut to ``dimensions`` if that is not 0. Takes a while: in a thread."""
        return [vectors.finish(vector, dimensions) for vector in self.vectors]


async def embed(request: web.Request) -> web.Response:
    began = time.monotonic_ns()
    body = await read_json(request, EmbedRequest)
    found = await compute(request.app[SERVICE], body)
    if not found.vectors:
        return json_reply(EmbedReply(model=body.model, embeddings=[]))

    def encode() -> bytes:
        reply = EmbedReply(
            model=body.model,
            embeddings=[goencode.float32_list(v) for v in found.finished(body.dimensions)],
            total_duration=max(time.monotonic_ns() - began, 1),
            load_duration=max(found.load_ns, 1),
            prompt_eval_count=found.tokens,
        )
        return goencode.encode(reply)

    # Thousands of numbers to print: other streams go on meanwhile.
    return json_reply(await asyncio.to_thread(encode))


async def compute(service: Service, body: EmbedRequest) -> Embedded:
    """The vectors of the inputs; without inputs, the model is loaded and nothing more."""
    inputs = _inputs(body.input)
    model = await lookup.for_embed(service, body.model)
    chosen = options.merge(
        model.parameters, body.options, context_length=service.settings.context_length
    ).floored(vision=False)
    load = lookup.load_request(model, chosen)
    async with await service.scheduler.lease(model, load, body.keep_alive) as lease:
        if not inputs:
            return Embedded()
        found = await lease.embed(inputs, body.truncate is not False)
        return Embedded(found.vectors, found.tokens, lease.load_ns)


async def embeddings(request: web.Request) -> web.Response:
    service = request.app[SERVICE]
    body = await read_json(request, EmbeddingRequest)
    model = await lookup.for_embeddings(service, body.model)
    chosen = options.merge(
        model.parameters, body.options, context_length=service.settings.context_length
    ).floored(vision=False)
    load = lookup.load_request(model, chosen)
    async with await service.scheduler.lease(model, load, body.keep_alive) as lease:
        if not body.prompt:
            return json_reply(EmbeddingReply(goencode.float64_list([])))
        try:
            found = await lease.embed([body.prompt], truncate=True)
        except RunnerFailed as error:
            raise LhamaError(error_text(error)) from None  # whatever it was: 500
    (vector,) = found.vectors
    if model.config.model_family in RAW_FAMILIES:
        vectors.check_finite(vector)
    else:
        vector = vectors.finish(vector)
    exact = [goencode.float32(value) for value in vector]
    return json_reply(EmbeddingReply(goencode.float64_list(exact)))


def _inputs(value: Any) -> list[str]:
    """The texts to embed; none loads the model only. Raises ``BadRequest``."""
    if value is None or value == "":
        return []
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise BadRequest("invalid input type")
    return value
