"""Anthropic's Messages: blocks in, events and one message out."""

from __future__ import annotations

import json
from typing import Any

import pytest
from lhama_testing_events import Event, events, streamed

from lhama.daemon.errors import Malformed
from lhama.daemon.protocol import gojson
from lhama.daemon.protocol.anthropic import estimate, reading
from lhama.daemon.protocol.anthropic.answer import MessagesAnswer
from lhama.daemon.protocol.anthropic.requests import MessagesRequest
from lhama.daemon.protocol.types import ChatRequest
from lhama.daemon.wire.messages import Delta, Done, ToolCall

STOP = Done("stop", prompt_tokens=3, prompt_ns=5, eval_tokens=2, eval_ns=0)
CALLS = [ToolCall("f", {"b": 1, "a": "<"}, id="call_1"), ToolCall("g", {}, index=1, id="call_2")]
SEARCH = {"type": "web_search_20250305", "name": "web_search"}
IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}


def _request(**members: Any) -> MessagesRequest:
    asked = [{"role": "user", "content": "hi"}]
    body = {"model": "m", "max_tokens": 8, "messages": asked, **members}
    return gojson.decode(json.dumps(body).encode(), MessagesRequest)


def _chat(*blocks: Any, role: str = "user", **members: Any) -> ChatRequest:
    if blocks:
        members["messages"] = [{"role": role, "content": list(blocks)}]
    return reading.chat(_request(**members))


# ---------------------------------------------------------------------------------------- reading


def test_only_what_is_given_is_an_option() -> None:
    assert _chat().options == {"num_predict": 8}
    given = {"temperature": 0, "top_p": 0.5, "top_k": 3, "stop_sequences": ["x"]}
    assert _chat(**given).options == {
        "num_predict": 8,
        "temperature": 0.0,
        "top_p": 0.5,
        "top_k": 3,
        "stop": ["x"],
    }


@pytest.mark.parametrize(
    "system", ["You are.", [{"type": "text", "text": "You "}, {"type": "text", "text": "are."}]]
)
def test_systems(system: Any) -> None:
    first, _ = _chat(system=system).messages
    assert (first.role, first.content) == ("system", "You are.")


@pytest.mark.parametrize(
    ("members", "think"),
    [
        ({}, None),
        ({"thinking": {"type": "enabled", "budget_tokens": 9}}, True),
        ({"thinking": {"type": "disabled"}, "output_config": {"effort": "high"}}, False),
        ({"thinking": {"type": "adaptive"}, "output_config": {"effort": " XHIGH"}}, "high"),
        ({"output_config": {"effort": "banana"}}, None),
    ],
)
def test_thinking(members: dict[str, Any], think: Any) -> None:
    assert _chat(**members).think == think


def test_results_come_before_what_the_user_adds() -> None:
    result = {
        "type": "tool_result",
        "tool_use_id": "c1",
        "content": [{"type": "text", "text": "4"}, {"type": "text", "text": "2"}, IMAGE],
    }
    failed = {"type": "tool_result", "tool_use_id": "c2", "content": "no", "is_error": True}
    empty = {"type": "tool_result", "tool_use_id": "c3"}
    turns = _chat({"type": "text", "text": "and?"}, result, failed, empty).messages
    assert [(t.role, t.content, t.tool_call_id) for t in turns] == [
        ("tool", "42", "c1"),
        ("tool", "no", "c2"),
        ("tool", "", "c3"),
        ("user", "and?", ""),
    ]
    assert turns[0].images == [b"\0\0\0"]


def test_an_assistants_blocks_are_one_turn() -> None:
    used = {"type": "tool_use", "id": "c1", "name": "f", "input": {"z": 1, "a": 2}}
    thought = {"type": "thinking", "thinking": "hm", "signature": "s"}
    (turn,) = _chat(thought, {"type": "text", "text": "a"}, used, role="Assistant").messages
    assert (turn.role, turn.thinking, turn.content) == ("assistant", "hm", "a")
    assert list(turn.tool_calls[0].function.arguments or ()) == ["z", "a"]


def test_blocks_of_unknown_types_are_passed_over() -> None:
    assert _chat({"type": "banana"}).messages == []


def test_earlier_searches_are_told_to_the_model() -> None:
    found = {"type": "web_search_result", "title": "T", "url": "https://x", "encrypted_content": ""}
    error = {"type": "web_search_tool_result_error", "error_code": "unavailable"}
    turns = _chat(
        {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"query": "q"}},
        {"type": "web_search_tool_result", "tool_use_id": "s", "content": [found]},
        {"type": "web_search_tool_result", "tool_use_id": "s", "content": error},
        role="assistant",
    ).messages
    assert [t.content for t in turns] == [
        "",
        "- T: https://x\n",
        "web_search_tool_result_error: unavailable",
    ]


def test_tools_keep_the_order_of_their_schema() -> None:
    schema = {"type": "object", "properties": {"z": {"type": "string"}, "a": {}}, "required": ["z"]}
    tools = [{"name": "f", "description": "d", "input_schema": schema}, {"name": "g"}]
    first, second = _chat(tools=tools).tools
    assert list(first.function.parameters.properties or ()) == ["z", "a"]
    assert (first.type, second.function.parameters.type) == ("function", "")


@pytest.mark.parametrize(
    ("members", "text"),
    [
        ({"model": "", "max_tokens": 0}, "model is required"),
        ({"max_tokens": -1}, "max_tokens is required and must be positive"),
        ({"messages": []}, "messages is required"),
        (
            {"messages": [{"role": 5}]},
            "json: cannot unmarshal number into Go struct field MessagesRequest.messages.role "
            "of type string",
        ),
        (
            {"messages": [{"content": [{"type": "text", "text": 5}]}]},
            "json: cannot unmarshal number into Go struct field MessagesRequest.messages.text "
            "of type string",
        ),
        ({"messages": [{"role": "user"}]}, "unexpected end of JSON input"),
        ({"messages": [None]}, "unexpected end of JSON input"),
        (
            {"messages": [1]},
            "json: cannot unmarshal number into Go struct field MessagesRequest.messages of type "
            'struct { Role string "json:\\"role\\""; Content json.RawMessage "json:\\"content\\"" }',
        ),
        (
            {"messages": [{"content": [{"type": "thinking", "signature": True}]}]},
            "json: cannot unmarshal bool into Go struct field MessagesRequest.messages.signature "
            "of type string",
        ),
        (
            {"tool_choice": {"type": 5}},
            "json: cannot unmarshal number into Go struct field ToolChoice.tool_choice.type "
            "of type string",
        ),
        (
            {"metadata": []},
            "json: cannot unmarshal array into Go struct field MessagesRequest.metadata "
            "of type anthropic.Metadata",
        ),
        (
            {"thinking": {"type": "enabled", "budget_tokens": "x"}},
            "json: cannot unmarshal string into Go struct field "
            "ThinkingConfig.thinking.budget_tokens of type int",
        ),
        (
            {"tools": [{"name": "f", "input_schema": {"required": 5}}]},
            'invalid input_schema for tool "f": json: cannot unmarshal number into Go struct field '
            "ToolFunctionParameters.required of type []string",
        ),
    ],
)
def test_requests_that_are_refused(members: dict[str, Any], text: str) -> None:
    with pytest.raises(Malformed) as caught:
        _chat(**members)
    assert caught.value.message == text


@pytest.mark.parametrize(
    ("block", "text"),
    [
        ({"type": "image"}, "invalid image source"),
        (
            {"type": "image", "source": {"type": "url", "url": "https://x"}},
            "invalid image source type: url. Only base64 images are supported.",
        ),
        (
            {"type": "image", "source": {"type": "base64", "data": "%"}},
            "invalid base64 image data: illegal base64 data at input byte 0",
        ),
        ({"type": "tool_use", "name": "f"}, "tool_use block missing required 'id' field"),
        ({"type": "tool_use", "id": "c"}, "tool_use block missing required 'name' field"),
        (
            {"type": "tool_result", "content": [{"type": "image", "source": 5}]},
            "invalid tool_result image source",
        ),
    ],
)
def test_blocks_that_are_refused(block: dict[str, Any], text: str) -> None:
    with pytest.raises(Malformed) as caught:
        _chat(block)
    assert caught.value.message == text


# ---------------------------------------------------------------------------------------- answers


def _stream(*deltas: Delta, **members: Any) -> list[Event]:
    found = streamed(MessagesAnswer(_request(**members)), *deltas)
    assert all(event.name == event.data["type"] for event in found)
    return found


def _blocks(found: list[Event]) -> list[dict[str, Any]]:
    """The blocks of a stream, put together as a client does; fails where they overlap."""
    blocks: list[dict[str, Any]] = []
    open_ = False
    for _, data in found:
        if data["type"] == "content_block_start":
            assert (open_, data["index"]) == (False, len(blocks))
            blocks.append(data["content_block"])
            open_ = True
        elif data["type"].startswith("content_block"):
            assert (open_, data["index"]) == (True, len(blocks) - 1)
            open_ = data["type"] == "content_block_delta"
            for name, value in data.get("delta", {}).items():
                if name != "type":
                    blocks[-1][name] = blocks[-1].get(name, "") + value
    assert not open_
    return blocks


def test_a_streams_events() -> None:
    found = _stream(
        Delta(1, thinking="h"), Delta(1, "a"), Delta(1, "b"), Delta(1, done=STOP), max_tokens=5
    )
    assert [event.name for event in found] == [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
        "content_block_start",
        "content_block_delta",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    assert found[0].data["message"]["content"] == []
    assert "stop_reason" not in found[0].data["message"]
    assert _blocks(found) == [{"type": "thinking", "thinking": "h"}, {"type": "text", "text": "ab"}]
    assert found[-2].data == {
        "type": "message_delta",
        "delta": {"stop_reason": "end_turn"},
        "usage": {"input_tokens": 3, "output_tokens": 2},
    }


def test_calls_are_blocks_and_the_reason() -> None:
    found = _stream(Delta(1, "a", tool_calls=CALLS), Delta(1, "b"), Delta(1, done=STOP))
    assert _blocks(found) == [
        {"type": "text", "text": "a"},
        {
            "type": "tool_use",
            "id": "call_1",
            "name": "f",
            "input": {},
            "partial_json": '{"b":1,"a":"\\u003c"}',
        },
        {"type": "tool_use", "id": "call_2", "name": "g", "input": {}, "partial_json": "{}"},
        {"type": "text", "text": "b"},
    ]
    assert found[-2].data["delta"] == {"stop_reason": "tool_use"}


def test_thoughts_after_a_text_are_dropped_once_there_were_some() -> None:
    late = _stream(
        Delta(1, thinking="x"), Delta(1, "a"), Delta(1, thinking="y"), Delta(1, done=STOP)
    )
    assert [block["type"] for block in _blocks(late)] == ["thinking", "text"]
    first = _stream(Delta(1, "a"), Delta(1, thinking="y"), Delta(1, done=STOP))
    assert [block["type"] for block in _blocks(first)] == ["text", "thinking"]


def test_an_empty_answer_is_a_message_without_blocks() -> None:
    assert [event.name for event in _stream(Delta(1, done=STOP))] == [
        "message_start",
        "message_delta",
        "message_stop",
    ]
    assert json.loads(MessagesAnswer(_request()).body([Delta(1, done=STOP)]))["content"] == []


def test_an_error_within_a_stream_is_an_event() -> None:
    answer = MessagesAnswer(_request())
    *_, last = events(answer.lines([Delta(1, "a")]) + answer.broken(503, "busy"))
    assert last.name == "error"
    assert last.data["error"] == {"type": "overloaded_error", "message": "busy"}


@pytest.mark.parametrize(
    ("reason", "calls", "said"),
    [
        ("stop", [], "end_turn"),
        ("length", [], "max_tokens"),
        ("length", CALLS, "tool_use"),
        ("load", [], "stop_sequence"),
    ],
)
def test_stop_reasons(reason: str, calls: list[ToolCall], said: str) -> None:
    delta = Delta(1, "a", tool_calls=calls, done=Done(reason, 0, 0, 0, 0))
    assert json.loads(MessagesAnswer(_request()).body([delta]))["stop_reason"] == said


def test_a_whole_message() -> None:
    encoded = MessagesAnswer(_request()).body([Delta(1, "a", "h", tool_calls=CALLS, done=STOP)])
    reply = json.loads(encoded)
    assert list(reply) == [
        "id",
        "type",
        "role",
        "model",
        "content",
        "stop_reason",
        "usage",
    ]
    assert [block["type"] for block in reply["content"]] == [
        "thinking",
        "text",
        "tool_use",
        "tool_use",
    ]
    assert b'"input":{"b":1,"a":"\\u003c"}' in encoded


def test_a_search_by_the_server_finds_nobody_to_ask() -> None:
    call = ToolCall("web_search", {"query": "x"}, id="call_1")
    body = MessagesAnswer(_request(tools=[SEARCH])).body([Delta(1, tool_calls=[call], done=STOP)])
    whole = json.loads(body)
    found = _stream(Delta(1, tool_calls=[call]), Delta(1, done=STOP), tools=[SEARCH])
    for blocks in (whole["content"], _blocks(found)):
        used, result = blocks
        assert (used["type"], used["input"]) == ("server_tool_use", {"query": "x"})
        assert result["tool_use_id"] == used["id"]
        assert result["content"]["error_code"] == "unavailable"
    assert whole["stop_reason"] == "end_turn"


def test_the_estimate_is_a_quarter_of_the_bytes() -> None:
    assert estimate.input_tokens(_request()) == 1  # "user" and "hi"
    assert estimate.input_tokens(_request(system="é" * 100)) == (200 + 6) // 4
    used = {"type": "tool_use", "id": "c", "name": "f", "input": {"a": "b" * 100}}
    assert estimate.input_tokens(_request(messages=[{"role": "user", "content": [used]}])) > 25
    used["input"] = {"a": "<" * 100}  # six bytes each, as Go writes it
    assert estimate.input_tokens(_request(messages=[{"role": "user", "content": [used]}])) > 150


def test_a_stream_that_ends_at_once_begins_with_the_count() -> None:
    for deltas, tokens in (([Delta(1, done=STOP)], 3), ([Delta(1, "a", done=STOP)], 1)):
        started = _stream(*deltas)[0].data
        assert started["message"]["usage"] == {"input_tokens": tokens, "output_tokens": 0}
