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
from lhama.daemon.protocol.options import EMBEDDING_BATCH, Options
from lhama.daemon.protocol.replies import EmbeddingReply, EmbedReply
from lhama.daemon.protocol.types import EmbeddingRequest, EmbedRequest
from lhama.daemon.store import StoredModel
from lhama.daemon.web import lookup
from lhama.daemon.web.body import read_json
from lhama.daemon.web.replies import error_text, json_reply
from lhama.daemon.web.service import SERVICE, Service
from lhama.daemon.wire.messages import Embed


@dataclass(frozen=True, slots=True)
class Embedded:
    """Vectors as the model made them, and what they took."""

    vectors: Sequence[Sequence[float]] = ()
    tokens: int = 0
    truncated: int = 0
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
    return json_reply(await asyncio.to_thread(encode), truncated=found.truncated)


async def compute(service: Service, body: EmbedRequest) -> Embedded:
    """The vectors of the inputs; without inputs, the model is loaded and nothing more."""
    asked = lookup.asked_for_embed(body.model)
    inputs = _inputs(body.input)
    model = await lookup.for_embed(service, asked)
    chosen = options.merge(
        model.parameters, body.options, context_length=service.settings.context_length
    )
    load = lookup.load_request(model, chosen.floored(vision=False))
    async with await service.scheduler.lease(model, load, body.keep_alive) as lease:
        if not inputs:
            return Embedded()
        truncate = body.truncate is not False
        found = await lease.embed(_fitting(inputs, truncate, model, chosen, lease.context))
        return Embedded(found.vectors, found.tokens, found.truncated_tokens, lease.load_ns)


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
            found = await lease.embed(Embed(0, [body.prompt]))
        except RunnerFailed as error:
            raise LhamaError(error_text(error)) from None  # whatever it was: 500
    (vector,) = found.vectors
    if _raw(model):
        vectors.check_finite(vector)
        return json_reply(EmbeddingReply(goencode.float64_list(vector)))
    exact = [goencode.float32(value) for value in vectors.finish(vector)]
    return json_reply(EmbeddingReply(goencode.float64_list(exact)))


def _raw(model: StoredModel) -> bool:
    """Whether the older route gives vectors as the model made them: Ollama's rule, by the file."""
    header = model.header()
    normalizes = header.key("normalize_embeddings")
    match header.architecture:
        case "bert" if header.get_str("tokenizer.ggml.model", "bert") == "bert":
            return not header.get_bool(normalizes, True)
        case "bert":
            return True
        case "nomic-bert" | "nomic-bert-moe":
            return not header.get_bool(normalizes, False)
    return False


def _fitting(
    inputs: list[str], truncate: bool, model: StoredModel, chosen: Options, context: int
) -> Embed:
    """Inputs with the limits that are theirs: ``num_ctx`` as it was asked for, however small, and
    the batch they are cut to at last (contract §1). ``context`` is what a model without the
    option got."""
    header = model.header()
    trained = header.get_int(header.key("context_length"), context)
    asked = context if chosen.num_ctx is None else chosen.num_ctx
    limit = min(asked, trained) if asked > 0 else trained
    batch = min(EMBEDDING_BATCH, asked) if asked > 0 else EMBEDDING_BATCH
    return Embed(0, inputs, truncate, limit, chosen.num_batch or batch)


def _inputs(value: Any) -> list[str]:
    """The texts to embed; none loads the model only. Raises ``BadRequest``."""
    if value is None or value == "":
        return []
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise BadRequest("invalid input type")
    return value
