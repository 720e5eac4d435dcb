"""OpenAI's requests become the core's, or an error in Ollama's words."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from lhama.daemon.errors import Malformed
from lhama.daemon.protocol import gojson
from lhama.daemon.protocol.openai import reading
from lhama.daemon.protocol.openai.requests import (
    ChatCompletionRequest,
    CompletionRequest,
    EmbedRequest,
)
from lhama.daemon.protocol.types import ChatRequest, Message

PNG = b"\x89PNG"
PNG_URL = "data:image/png;base64," + base64.b64encode(PNG).decode()
ASKED = {"role": "user", "content": "hi"}
CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"b":1,"a":2}'}}


def _chat(**members: Any) -> ChatRequest:
    body = {"model": "m", "messages": [ASKED], **members}
    return reading.chat(gojson.decode(json.dumps(body).encode(), ChatCompletionRequest))


def _messages(*messages: dict[str, Any]) -> list[Message]:
    return _chat(messages=list(messages)).messages


def test_temperature_and_top_p_are_neutral_where_none_is_given() -> None:
    assert _chat().options == {"temperature": 1.0, "top_p": 1.0}
    assert _chat(temperature=0, top_p=0.5).options == {"temperature": 0.0, "top_p": 0.5}


def test_options() -> None:
    given = {"max_tokens": 3, "seed": 7, "frequency_penalty": 0.5, "presence_penalty": -1}
    options = _chat(**given, stop=["a", 1, "b"]).options
    assert options["num_predict"] == 3
    assert options["seed"] == 7
    assert options["stop"] == ["a", "b"]
    assert (options["frequency_penalty"], options["presence_penalty"]) == (0.5, -1.0)


@pytest.mark.parametrize(
    ("stop", "read"), [("x", ["x"]), ([""], [""]), (5, None), ({}, None), ([], None), ([5], None)]
)
def test_stop_is_a_text_or_a_list(stop: Any, read: Any) -> None:
    """What holds no text counts as not given, and the model's own stops stay."""
    assert _chat(stop=stop).options.get("stop") == read
    assert ("stop" in _chat(stop=stop).options) == (read is not None)


def test_max_completion_tokens_counts_where_max_tokens_is_not_given() -> None:
    assert _chat(max_completion_tokens=3).options["num_predict"] == 3
    assert _chat(max_completion_tokens=3, max_tokens=4).options["num_predict"] == 4
    for odd in ("3", 1.5, True, None, [3], {}):
        assert "num_predict" not in _chat(max_completion_tokens=odd).options


def test_arguments_of_null_are_none() -> None:
    function = {"name": "f", "arguments": " null "}
    (message,) = _messages({"role": "assistant", "tool_calls": [{"function": function}]})
    assert message.tool_calls[0].function.arguments == {}


def test_what_is_not_honoured_is_ignored() -> None:
    ignored = {"n": 2, "tool_choice": "required", "logit_bias": {"1": 2}, "options": {"num_ctx": 1}}
    assert _chat(**ignored, user=5, keep_alive="never", think="no") == _chat()


@pytest.mark.parametrize(
    ("given", "think"),
    [
        ({}, None),
        ({"reasoning_effort": ""}, None),
        ({"reasoning_effort": "none"}, False),
        ({"reasoning_effort": "minimal"}, "low"),
        ({"reasoning_effort": "xhigh"}, "max"),
        ({"reasoning": {"effort": "high"}, "reasoning_effort": "low"}, "high"),
    ],
)
def test_efforts(given: dict[str, Any], think: Any) -> None:
    assert _chat(**given).think == think


@pytest.mark.parametrize(
    ("form", "read"),
    [
        ({"type": " JSON_object "}, b'"json"'),
        ({"type": "json_schema", "json_schema": {"schema": {"a": 1}}}, b'{"a":1}'),
        ({"type": "json_schema"}, b""),
        ({"type": "text"}, b""),
        (None, b""),
    ],
)
def test_response_formats(form: Any, read: bytes) -> None:
    assert bytes(_chat(response_format=form).format) == read


def test_each_part_of_a_content_is_a_message() -> None:
    parts = [
        {"type": "text", "text": "look"},
        {"type": "image_url", "image_url": {"url": PNG_URL}},
        {"type": "image_url", "image_url": PNG_URL},
        {"type": "input_audio", "input_audio": {"data": "AAAA"}},
    ]
    read = _messages({"role": "user", "content": parts})
    assert [m.content for m in read] == ["look", "", "", ""]
    assert [m.images for m in read] == [[], [PNG], [PNG], [b"\0\0\0"]]


def test_calls_and_thoughts_go_with_the_last_part() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    first, last = _messages(
        {"role": "assistant", "content": parts, "tool_calls": [CALL], "reasoning": "hm"}
    )
    assert (first.tool_calls, first.thinking) == ([], "")
    (call,) = last.tool_calls
    assert list(call.function.arguments or ()) == ["b", "a"]
    assert (call.id, last.thinking) == ("c1", "hm")


def test_a_tools_answer_is_named_by_its_call() -> None:
    calling = {"role": "assistant", "content": None, "tool_calls": [CALL]}
    again = {**calling, "tool_calls": [{**CALL, "function": {"name": "g", "arguments": "{}"}}]}
    answer = {"role": "tool", "tool_call_id": "c1", "content": "42"}
    assert _messages(ASKED, calling, answer)[2].tool_name == "f"
    assert _messages(ASKED, calling, again, answer)[3].tool_name == "g"
    assert _messages(ASKED, calling, {**answer, "name": "h"})[2].tool_name == "h"
    assert _messages(ASKED, calling, answer)[2].tool_call_id == "c1"


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ({"content": 5}, "invalid message content type: float64"),
        ({"content": None}, "invalid message content type: <nil>"),
        ({"content": {}}, "invalid message content type: map[string]interface {}"),
        ({"content": ["a"]}, "invalid message format"),
        ({"content": [{"type": "text", "text": 1}]}, "invalid message format"),
        ({"content": [{"type": "image_url", "image_url": 1}]}, "invalid message format"),
        (
            {"content": [{"type": "image_url", "image_url": "https://x/y.png"}]},
            "image URLs are not currently supported, please use base64 encoded data instead",
        ),
        (
            {"content": [{"type": "image_url", "image_url": "data:;base64,%"}]},
            "invalid image input",
        ),
        (
            {"content": [{"type": "image_url", "image_url": "data:image/gif;base64,AAAA"}]},
            "invalid image input",
        ),
        ({"content": [{"type": "input_audio"}]}, "invalid input_audio format"),
        (
            {"content": [{"type": "input_audio", "input_audio": {}}]},
            "invalid input_audio format: missing data",
        ),
        (
            {"content": [{"type": "input_audio", "input_audio": {"data": "A"}}]},
            "invalid input_audio base64 data: illegal base64 data at input byte 0",
        ),
        ({"tool_calls": [{"function": {"arguments": ""}}]}, "invalid tool call arguments"),
        ({"tool_calls": [{"function": {"arguments": "[]"}}]}, "invalid tool call arguments"),
        (
            {"tool_calls": [{"function": {"arguments": {}}}]},
            "json: cannot unmarshal object into Go struct field "
            ".messages.tool_calls.function.arguments of type string",
        ),
        (
            {"tool_calls": [{"function": 5}]},
            "json: cannot unmarshal number into Go struct field ToolCall.messages.tool_calls.function "
            'of type struct { Name string "json:\\"name\\""; Arguments string "json:\\"arguments\\"" }',
        ),
        (
            {"content": "", "tool_calls": 5},
            "json: cannot unmarshal number into Go struct field Message.messages.tool_calls "
            "of type []openai.ToolCall",
        ),
    ],
)
def test_messages_that_are_refused(message: dict[str, Any], text: str) -> None:
    with pytest.raises(Malformed) as caught:
        _messages({"role": "user", **message})
    assert caught.value.message == text


@pytest.mark.parametrize(
    ("members", "text"),
    [
        ({"messages": []}, "[] is too short - 'messages'"),
        ({"messages": None}, "[] is too short - 'messages'"),
        (
            {"messages": "x"},
            "json: cannot unmarshal string into Go struct field ChatCompletionRequest.messages "
            "of type []openai.Message",
        ),
        (
            {"temperature": "hot"},
            "json: cannot unmarshal string into Go struct field "
            "ChatCompletionRequest.temperature of type float64",
        ),
        (
            {"max_tokens": 1.5},
            "json: cannot unmarshal number 1.5 into Go struct field "
            "ChatCompletionRequest.max_tokens of type int",
        ),
        (
            {"reasoning_effort": "banana"},
            'invalid reasoning value: "banana" (must be "minimal", "low", "medium", "high", '
            '"xhigh", "ultra", "max", or "none")',
        ),
    ],
)
def test_requests_that_are_refused(members: dict[str, Any], text: str) -> None:
    with pytest.raises(Malformed) as caught:
        _chat(**members)
    assert caught.value.message == text


def test_completions() -> None:
    body = {"model": "m", "prompt": "p", "suffix": "s", "logprobs": 2, "max_tokens": 4}
    read = reading.completion(gojson.decode(json.dumps(body).encode(), CompletionRequest))
    assert (read.prompt, read.suffix, read.logprobs, read.top_logprobs) == ("p", "s", True, 2)
    assert read.stream is False
    assert read.options == {
        "num_predict": 4,
        "temperature": 1.0,
        "top_p": 1.0,
        "frequency_penalty": 0.0,
        "presence_penalty": 0.0,
    }


@pytest.mark.parametrize(
    ("members", "text"),
    [
        ({"stop": [1]}, "invalid type for 'stop' field: float64"),
        (
            {"prompt": ["a"]},
            "json: cannot unmarshal array into Go struct field CompletionRequest.prompt "
            "of type string",
        ),
        (
            {"top_p": "x"},
            "json: cannot unmarshal string into Go struct field CompletionRequest.top_p "
            "of type float32",
        ),
    ],
)
def test_completions_that_are_refused(members: dict[str, Any], text: str) -> None:
    with pytest.raises(Malformed) as caught:
        reading.completion(gojson.decode(json.dumps(members).encode(), CompletionRequest))
    assert caught.value.message == text


@pytest.mark.parametrize(("given", "read"), [("", [""]), ("x", "x"), (["a"], ["a"]), ([1], [1])])
def test_inputs_to_embed(given: Any, read: Any) -> None:
    assert reading.inputs(EmbedRequest(input=given, encoding_format="Base64")) == read


@pytest.mark.parametrize("given", [None, []])
def test_no_input_to_embed(given: Any) -> None:
    with pytest.raises(Malformed, match="^invalid input$"):
        reading.inputs(EmbedRequest(input=given))


def test_an_empty_body_is_an_end_of_file() -> None:
    with pytest.raises(Malformed, match="^EOF$"):
        gojson.decode(b" \n", ChatCompletionRequest, empty="EOF")
