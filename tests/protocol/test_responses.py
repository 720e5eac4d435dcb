"""OpenAI's Responses: items in, events and one object out."""

from __future__ import annotations

import json
from typing import Any

import pytest
from lhama_testing_events import Event, events, streamed

from lhama.daemon.errors import Forbidden, Malformed
from lhama.daemon.protocol import gojson
from lhama.daemon.protocol.openai.responses import reading
from lhama.daemon.protocol.openai.responses.answer import ResponsesAnswer
from lhama.daemon.protocol.openai.responses.requests import ResponsesRequest
from lhama.daemon.protocol.types import ChatRequest
from lhama.daemon.wire.messages import Delta, Done, ToolCall

STOP = Done("stop", prompt_tokens=3, prompt_ns=5, eval_tokens=2, eval_ns=0)
CALL = ToolCall("f", {"a": 1}, id="call_1")


def _request(**members: Any) -> ResponsesRequest:
    return gojson.decode(json.dumps({"model": "m", **members}).encode(), ResponsesRequest)


def _chat(*items: Any, **members: Any) -> ChatRequest:
    return reading.chat(_request(input=list(items), **members))


def _call(call_id: str, arguments: str = "{}") -> dict[str, str]:
    return {"type": "function_call", "call_id": call_id, "name": "f", "arguments": arguments}


def _result(call_id: str, output: Any = "42") -> dict[str, Any]:
    return {"type": "function_call_output", "call_id": call_id, "output": output}


# ---------------------------------------------------------------------------------------- reading


def test_a_text_is_a_users_turn_and_instructions_a_systems() -> None:
    read = reading.chat(_request(input="hi", instructions="Be brief."))
    assert [(m.role, m.content) for m in read.messages] == [("system", "Be brief."), ("user", "hi")]


def test_top_p_is_the_models_own_and_temperature_is_not() -> None:
    assert reading.chat(_request(input="hi")).options == {"temperature": 1.0}


def test_parts_of_a_message_are_joined() -> None:
    parts = [
        {"type": "input_text", "text": "a"},
        {"type": "output_text", "text": "b"},
        {"type": "input_image", "image_url": "data:;base64,AAAA"},
        {"type": "input_image", "file_id": "f"},
    ]
    (turn,) = _chat({"role": "user", "content": parts}).messages
    assert (turn.content, turn.images) == ("ab", [b"\0\0\0"])


def test_reasoning_and_calls_belong_to_the_assistants_turn() -> None:
    turns = _chat(
        {"type": "message", "role": "user", "content": "q"},
        {"type": "reasoning", "encrypted_content": "hm"},
        {"type": "message", "role": "assistant", "content": "a"},
        _call("c1", '{"z":1}'),
        {"type": "message", "role": "assistant", "content": "still a"},
        _result("c1", [{"type": "input_text", "text": "4"}, {"type": "input_text", "text": "2"}]),
        {"type": "web_search_call", "id": "w"},
        {"type": "reasoning", "encrypted_content": "left over"},
    ).messages
    assert [t.role for t in turns] == ["user", "assistant", "tool", "assistant"]
    assert (turns[1].content, turns[1].thinking) == ("a\nstill a", "hm")
    assert turns[1].tool_calls[0].function.arguments == {"z": 1}
    assert (turns[2].content, turns[2].tool_call_id) == ("42", "c1")
    assert turns[3].thinking == "left over"


def test_an_assistants_text_after_another_result_is_a_turn_of_its_own() -> None:
    turns = _chat(_call("c1"), _result("c1"), {"role": "assistant", "content": "x"}).messages
    assert [t.role for t in turns] == ["assistant", "tool", "assistant"]


def test_tools_of_a_namespace_have_its_name() -> None:
    inner = {"type": "function", "name": "g", "parameters": {"properties": {"b": {}, "a": {}}}}
    tools = [{"type": "namespace", "name": "ns", "tools": [inner, {**inner, "name": "ns.h"}]}]
    read = _chat(tools=tools).tools
    assert [t.function.name for t in read] == ["ns.g", "ns.h"]
    # Ollama reads the schema through a Go map.
    assert list(read[0].function.parameters.properties or ()) == ["a", "b"]


def test_the_built_in_search_keeps_its_name() -> None:
    tools = [{"type": "web_search"}, {"type": "function", "name": "web_search"}]
    (tool,) = _chat(tools=tools).tools
    assert tool.function.parameters.required == ["query"]


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (5, "input must be a string or array: json: cannot unmarshal number into Go value of type []json.RawMessage"),
        ([{"type": "x"}], 'input[0]: unknown input item type: "x"'),
        ([{}], "input[0]: input item missing required 'type' field"),
        ([{"role": "user", "content": [{"type": "z"}]}], "input[0]: content[0]: unknown content type: z"),
        ([{"role": "user", "content": [{"type": "input_file"}]}], "file inputs are not currently supported"),
        ([1], 'input[0]: json: cannot unmarshal number into Go value of type struct { Type string "json:\\"type\\""; Role string "json:\\"role\\"" }'),
        (
            [{"role": "user", "content": [1]}],
            'input[0]: content[0]: json: cannot unmarshal number into Go value of type struct { Type string "json:\\"type\\"" }',
        ),
        (
            [{"role": "user", "content": [{"type": "input_image", "detail": 1}]}],
            "input[0]: content[0]: json: cannot unmarshal number into Go struct field ResponsesImageContent.detail of type string",
        ),
        (
            [{"type": "reasoning", "summary": [1]}],
            "input[0]: json: cannot unmarshal number into Go struct field ResponsesReasoningInput.summary of type openai.ResponsesReasoningSummary",
        ),
        (
            [{"type": "function_call", "id": 1}],
            "input[0]: json: cannot unmarshal number into Go struct field ResponsesFunctionCall.id of type string",
        ),
        ([_call("c", "x")], "failed to parse function call arguments: invalid character 'x' looking for beginning of value"),
        ([_call("c", "{} 1")], "failed to parse function call arguments: invalid character '1' after top-level value"),
        ([_call("c", "{")], "failed to parse function call arguments: unexpected end of JSON input"),
        (
            [_call("c", "[1]")],
            "failed to parse function call arguments: Value looks like object, but can't find closing '}' symbol",
        ),
    ],
)  # fmt: skip
def test_inputs_that_are_refused(given: Any, text: str) -> None:
    with pytest.raises(Malformed) as caught:
        reading.chat(_request(input=given))
    assert caught.value.message == text


# ---------------------------------------------------------------------------------------- answers


def _stream(*deltas: Delta, **members: Any) -> list[Event]:
    found = streamed(ResponsesAnswer(_request(**members)), *deltas)
    assert [event.data["sequence_number"] for event in found] == list(range(len(found)))
    assert all(event.name == event.data["type"] for event in found)
    return found


def _finished(found: list[Event]) -> list[dict[str, Any]]:
    """The output of the response, which is what was sent item by item, each under its index."""
    done = [event.data for event in found if event.name == "response.output_item.done"]
    added = [event.data for event in found if event.name == "response.output_item.added"]
    assert [event["output_index"] for event in added] == list(range(len(done)))
    assert [event["output_index"] for event in done] == list(range(len(done)))
    output: list[dict[str, Any]] = found[-1].data["response"]["output"]
    assert [event["item"] for event in done] == output
    return output


def test_a_streams_events() -> None:
    found = _stream(Delta(1, thinking="h"), Delta(1, "a"), Delta(1, "b"), Delta(1, done=STOP))
    assert [event.name.removeprefix("response.") for event in found] == [
        "created",
        "in_progress",
        "output_item.added",
        "reasoning_summary_text.delta",
        "reasoning_summary_text.done",
        "output_item.done",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    thoughts, message = _finished(found)
    assert thoughts["encrypted_content"] == "h"
    assert message["content"][0]["text"] == "ab"
    assert found[-1].data["response"]["usage"]["total_tokens"] == 5


def test_a_text_before_a_call_is_an_item_of_its_own_and_what_follows_is_dropped() -> None:
    second = ToolCall("g", {}, index=1, id="call_2")
    found = _stream(
        Delta(1, "a", tool_calls=[CALL, second]), Delta(1, "dropped"), Delta(1, done=STOP)
    )
    message, call, other = _finished(found)
    assert message["content"][0]["text"] == "a"
    assert (call["call_id"], call["arguments"]) == ("call_1", '{"a":1}')
    assert other["name"] == "g"
    assert len({item["id"] for item in (message, call, other)}) == 3


def test_an_empty_stream_completes() -> None:
    found = _stream(Delta(1, done=STOP))
    assert [event.name.removeprefix("response.") for event in found] == [
        "created",
        "in_progress",
        "completed",
    ]


def test_a_broken_stream_fails_with_what_it_had() -> None:
    answer = ResponsesAnswer(_request())
    *_, last = events(answer.lines([Delta(1, "a")]) + answer.broken(500, "the runner died"))
    assert last.name == "response.failed"
    assert last.data["response"]["status"] == "failed"
    assert last.data["response"]["error"] == {
        "code": "server_error",
        "message": "the runner died",
    }


def test_the_request_is_echoed_in_the_body_and_in_the_stream() -> None:
    schema = {"type": "object", "required": ["b"]}
    members = {
        "instructions": "Be.",
        "tools": [{"type": "function", "name": "f", "parameters": {"b": 1.0, "a": 2}}],
        "text": {"format": {"type": "json_schema", "name": "n", "schema": schema, "strict": True}},
        "reasoning": {"effort": "low"},
        "top_p": 0.5,
        "max_output_tokens": 9,
        "truncation": "auto",
    }
    body = json.loads(ResponsesAnswer(_request(**members)).body([Delta(1, "a", done=STOP)]))
    event = _stream(Delta(1, done=STOP), **members)[0].data["response"]
    for name in ("instructions", "tools", "text", "top_p", "max_output_tokens", "truncation"):
        assert body[name] == event[name]
    assert body["text"]["format"]["schema"] == schema
    assert list(body["tools"][0]["parameters"]) == ["a", "b"]
    assert (body["reasoning"], event["reasoning"]) == (
        {"effort": "low"},
        {"effort": "low", "summary": None},
    )
    assert list(event) == sorted(event)


def test_a_body_has_a_message_even_if_it_is_empty() -> None:
    body = json.loads(ResponsesAnswer(_request()).body([Delta(1, done=STOP)]))
    (message,) = body["output"]
    assert message["content"][0]["text"] == ""
    called = Delta(1, "a", "t", tool_calls=[CALL], done=STOP)
    body = json.loads(ResponsesAnswer(_request()).body([called]))
    assert [item["type"] for item in body["output"]] == ["reasoning", "message", "function_call"]


def test_a_namespace_shows_its_tools_in_a_body_only() -> None:
    tools = [{"type": "namespace", "name": "ns", "tools": [{"type": "function", "name": "f"}]}]
    shown = json.loads(ResponsesAnswer(_request(tools=tools)).body([Delta(1, "a", done=STOP)]))
    assert [tool["name"] for tool in shown["tools"][0]["tools"]] == ["f"]
    begun = _stream(Delta(1, "a", done=STOP), tools=tools)[0].data["response"]
    assert "tools" not in begun["tools"][0]


def test_a_search_by_the_server_is_refused() -> None:
    answer = ResponsesAnswer(_request(tools=[{"type": "web_search"}]))
    search = Delta(1, tool_calls=[ToolCall("web_search", {"query": "x"})], done=STOP)
    with pytest.raises(Forbidden, match="web search is unavailable"):
        answer.lines([search])
    with pytest.raises(Forbidden, match="web search is unavailable"):
        answer.body([search])
    own = ResponsesAnswer(_request(tools=[{"type": "function", "name": "web_search"}]))
    assert own.body([search])
