"""OpenAI's routes: requests are translated, the core answers in OpenAI's form."""

from __future__ import annotations

import asyncio
from typing import TypeVar

import msgspec
from aiohttp import web

from lhama.daemon.durations import SECOND
from lhama.daemon.protocol import goencode, types
from lhama.daemon.protocol.openai import reading
from lhama.daemon.protocol.openai.chat import ChatCompletionAnswer
from lhama.daemon.protocol.openai.completions import CompletionAnswer
from lhama.daemon.protocol.openai.embeddings import TextUsage, embedding_list
from lhama.daemon.protocol.openai.replies import Model, ModelList
from lhama.daemon.protocol.openai.requests import (
    ChatCompletionRequest,
    CompletionRequest,
    EmbedRequest,
    RerankRequest,
)
from lhama.daemon.protocol.openai.rerank import ranking_list
from lhama.daemon.protocol.openai.responses.answer import ResponsesAnswer
from lhama.daemon.protocol.openai.responses.reading import chat as responses_chat
from lhama.daemon.protocol.openai.responses.requests import ResponsesRequest
from lhama.daemon.protocol.openai.transcriptions import TranscriptionAnswer
from lhama.daemon.protocol.openai.transcriptions import chat as transcription_chat
from lhama.daemon.store import StoredModel
from lhama.daemon.web import lookup
from lhama.daemon.web.body import read_json
from lhama.daemon.web.embeddings import compute
from lhama.daemon.web.forms import read_form
from lhama.daemon.web.inference import answer_chat, answer_generate
from lhama.daemon.web.replies import BARE_JSON, json_reply
from lhama.daemon.web.rerank import rank
from lhama.daemon.web.service import SERVICE

T = TypeVar("T", bound=msgspec.Struct)


async def chat_completions(request: web.Request) -> web.StreamResponse:
    asked = await _read(request, ChatCompletionRequest)
    return await answer_chat(request, reading.chat(asked), ChatCompletionAnswer(asked))


async def completions(request: web.Request) -> web.StreamResponse:
    asked = await _read(request, CompletionRequest)
    return await answer_generate(request, reading.completion(asked), CompletionAnswer(asked))


async def responses(request: web.Request) -> web.StreamResponse:
    asked = await _read(request, ResponsesRequest)
    return await answer_chat(request, responses_chat(asked), ResponsesAnswer(asked))


async def transcriptions(request: web.Request) -> web.StreamResponse:
    form = await read_form(request)
    return await answer_chat(request, transcription_chat(form), TranscriptionAnswer(form))


async def embeddings(request: web.Request) -> web.Response:
    asked = await _read(request, EmbedRequest)
    core = types.EmbedRequest(
        model=asked.model, input=reading.inputs(asked), dimensions=asked.dimensions
    )
    found = await compute(request.app[SERVICE], core)

    def encode() -> bytes:
        vectors = found.finished(asked.dimensions)
        usage = TextUsage(found.tokens, found.tokens, found.truncated)
        return embedding_list(asked.model, vectors, usage, asked.encoding_format)

    body = await asyncio.to_thread(encode)
    return json_reply(body, content_type=BARE_JSON, truncated=found.truncated)


async def rerank(request: web.Request) -> web.Response:
    asked = await _read(request, RerankRequest)
    ranking = reading.ranking(asked)
    found = await rank(request.app[SERVICE], asked.model, ranking)
    usage = TextUsage(found.tokens, found.tokens, found.truncated)
    body = ranking_list(asked.model, found.results, usage)
    return json_reply(body, content_type=BARE_JSON, truncated=found.truncated)


async def models(request: web.Request) -> web.Response:
    store = request.app[SERVICE].store

    def read() -> list[Model]:
        return [_model(model, model.name.short) for model in store.list()]

    return _reply(ModelList("list", await asyncio.to_thread(read)))


async def model(request: web.Request) -> web.Response:
    store = request.app[SERVICE].store
    text = request.path.rpartition("/")[2]
    asked = lookup.shown(text)

    def read() -> Model:
        return _model(lookup.find_shown(store, asked), text)

    return _reply(await asyncio.to_thread(read))


def _model(model: StoredModel, name: str) -> Model:
    return Model(name, "model", model.modified_ns // SECOND, model.name.namespace)


def _reply(body: msgspec.Struct) -> web.Response:
    return json_reply(goencode.encode(body) + b"\n", content_type=BARE_JSON)


async def _read(request: web.Request, into: type[T]) -> T:
    return await read_json(request, into, empty="EOF")
