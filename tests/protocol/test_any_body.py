"""Whatever a body holds, the readers of OpenAI's and Anthropic's requests refuse it or read it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lhama.daemon.errors import Malformed
from lhama.daemon.protocol import gojson
from lhama.daemon.protocol.anthropic import estimate
from lhama.daemon.protocol.anthropic import reading as anthropic
from lhama.daemon.protocol.anthropic.answer import MessagesAnswer
from lhama.daemon.protocol.anthropic.requests import MessagesRequest
from lhama.daemon.protocol.openai import reading as openai
from lhama.daemon.protocol.openai.chat import ChatCompletionAnswer
from lhama.daemon.protocol.openai.requests import (
    ChatCompletionRequest,
    CompletionRequest,
    EmbedRequest,
)
from lhama.daemon.protocol.openai.responses import reading as responses
from lhama.daemon.protocol.openai.responses.answer import ResponsesAnswer
from lhama.daemon.protocol.openai.responses.requests import ResponsesRequest
from lhama.daemon.wire.messages import Delta, Done

DONE = Done("stop", 1, 1, 1, 1)


def _chat(request: ChatCompletionRequest) -> None:
    openai.chat(request)
    ChatCompletionAnswer(request).body([Delta(1, "x", done=DONE)])


def _responses(request: ResponsesRequest) -> None:
    responses.chat(request)
    answer = ResponsesAnswer(request)
    answer.body([Delta(1, "x", done=DONE)])
    answer.lines([Delta(1, "x", done=DONE)])


def _messages(request: MessagesRequest) -> None:
    anthropic.chat(request)
    estimate.input_tokens(request)
    MessagesAnswer(request).lines([Delta(1, "x", done=DONE)])


READERS: dict[type[msgspec.Struct], Callable[[Any], object]] = {
    ChatCompletionRequest: _chat,
    CompletionRequest: openai.completion,
    EmbedRequest: openai.inputs,
    ResponsesRequest: _responses,
    MessagesRequest: _messages,
}

KEYS = [
    "model",
    "messages",
    "input",
    "prompt",
    "role",
    "content",
    "type",
    "text",
    "tool_calls",
    "function",
    "arguments",
    "name",
    "id",
    "image_url",
    "url",
    "input_audio",
    "data",
    "source",
    "tool_use_id",
    "thinking",
    "tools",
    "parameters",
    "input_schema",
    "properties",
    "items",
    "required",
    "enum",
    "anyOf",
    "description",
    "system",
    "stop",
    "max_tokens",
    "max_output_tokens",
    "reasoning",
    "effort",
    "response_format",
    "json_schema",
    "schema",
    "format",
    "call_id",
    "output",
    "encrypted_content",
    "stream_options",
    "dimensions",
    "encoding_format",
    "logprobs",
    "output_config",
]
WORDS = [
    "user",
    "assistant",
    "tool",
    "system",
    "message",
    "function",
    "function_call",
    "function_call_output",
    "reasoning",
    "text",
    "input_text",
    "output_text",
    "input_image",
    "image",
    "image_url",
    "input_audio",
    "tool_use",
    "tool_result",
    "thinking",
    "web_search",
    "namespace",
    "web_search_tool_result",
    "base64",
    "json_schema",
    "enabled",
    "object",
    "string",
    "high",
    "{}",
    "[]",
    '{"a":1}',
    "data:image/png;base64,AAAA",
]

plain = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
values = st.recursive(
    plain | st.sampled_from(WORDS),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=6)
    ),
    max_leaves=25,
)
bodies = st.dictionaries(st.sampled_from(KEYS), values, max_size=8)


@pytest.mark.parametrize("into", READERS)
@settings(max_examples=60, deadline=None)
@given(body=bodies)
def test_any_body_is_read_or_refused(into: type[msgspec.Struct], body: dict[str, Any]) -> None:
    body = {"model": "m", **body}
    text = json.dumps(body, allow_nan=True).encode("utf-8", "surrogatepass")
    with contextlib.suppress(Malformed):
        READERS[into](gojson.decode(text, into))


@pytest.mark.parametrize("into", READERS)
@settings(max_examples=40, deadline=None)
@given(messages=st.lists(values, min_size=1, max_size=4), tools=st.lists(values, max_size=3))
def test_any_conversation_is_read_or_refused(
    into: type[msgspec.Struct], messages: list[Any], tools: list[Any]
) -> None:
    shaped = [m if isinstance(m, dict) else {"role": "user", "content": m} for m in messages]
    body = {"model": "m", "max_tokens": 1, "messages": shaped, "input": shaped, "tools": tools}
    with contextlib.suppress(Malformed):
        READERS[into](gojson.decode(json.dumps(body).encode(), into))
