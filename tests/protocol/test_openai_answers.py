"""Deltas become OpenAI's chunks and bodies."""

from __future__ import annotations

import base64
import json
import struct
from typing import Any

import pytest
from lhama_testing_events import events, streamed

from lhama.daemon.protocol.openai.chat import ChatCompletionAnswer
from lhama.daemon.protocol.openai.completions import CompletionAnswer
from lhama.daemon.protocol.openai.embeddings import TextUsage, embedding_list
from lhama.daemon.protocol.openai.requests import (
    ChatCompletionRequest,
    CompletionRequest,
    StreamOptions,
)
from lhama.daemon.protocol.openai.transcriptions import TranscriptionAnswer
from lhama.daemon.wire.messages import Delta, Done, Rendered, TokenLogprob, ToolCall

STOP = Done("stop", prompt_tokens=3, prompt_ns=5, eval_tokens=2, eval_ns=0)
CALLS = [
    ToolCall("f", {"b": 1.0, "a": "<"}, index=0, id="call_1"),
    ToolCall("g", {}, index=1, id="call_2"),
]


def _chat(*, usage: bool = False) -> ChatCompletionAnswer:
    options = StreamOptions(include_usage=True) if usage else None
    return ChatCompletionAnswer(ChatCompletionRequest(model="m", stream_options=options))


def _chunks(*deltas: Delta, usage: bool = False) -> list[dict[str, Any]]:
    """The chunks of a stream that ends as it should, without its end."""
    found = streamed(_chat(usage=usage), *deltas)
    assert found[-1] == ("", "[DONE]")
    chunks = [event.data for event in found[:-1]]
    assert len({(chunk["id"], chunk["created"]) for chunk in chunks}) == 1
    return chunks


def _deltas(*deltas: Delta) -> list[dict[str, Any]]:
    return [chunk["choices"][0]["delta"] for chunk in _chunks(*deltas)]


def test_only_the_first_chunk_has_a_role() -> None:
    assert _deltas(Delta(1, "a<"), Delta(1, "b"), Delta(1, done=STOP)) == [
        {"role": "assistant", "content": "a<"},
        {"content": "b"},
        {},
    ]


def test_the_last_text_may_come_with_the_end() -> None:
    assert _deltas(Delta(1, "a"), Delta(1, "b", done=STOP)) == [
        {"role": "assistant", "content": "a"},
        {"content": "b"},
        {},
    ]


def test_an_empty_answer_has_a_role_too() -> None:
    assert _deltas(Delta(1, done=STOP)) == [{"role": "assistant", "content": ""}, {}]


def test_thoughts_come_with_an_empty_content_unless_more_comes_with_them() -> None:
    assert _deltas(Delta(1, thinking="x"), Delta(1, "a", "y"), Delta(1, done=STOP)) == [
        {"role": "assistant", "content": "", "reasoning": "x"},
        {"reasoning": "y"},
        {"content": "a"},
        {},
    ]


def test_calls_are_whole_and_numbered_and_end_the_answer() -> None:
    first, end = _chunks(Delta(1, tool_calls=CALLS), Delta(1, done=STOP))
    assert first["choices"][0]["delta"] == {
        "role": "assistant",
        "content": "",
        "tool_calls": [
            {
                "id": "call_1",
                "index": 0,
                "type": "function",
                "function": {"name": "f", "arguments": '{"b":1,"a":"\\u003c"}'},
            },
            {
                "id": "call_2",
                "index": 1,
                "type": "function",
                "function": {"name": "g", "arguments": "{}"},
            },
        ],
    }
    assert end["choices"][0]["finish_reason"] == "tool_calls"


@pytest.mark.parametrize(
    ("reason", "calls", "said"),
    [("stop", [], "stop"), ("length", CALLS, "length"), ("load", [], "load")],
)
def test_finish_reasons(reason: str, calls: list[ToolCall], said: str) -> None:
    done = Done(reason, 0, 0, 0, 0)
    *_, end = _chunks(Delta(1, "x", tool_calls=calls), Delta(1, done=done))
    assert end["choices"][0]["finish_reason"] == said
    whole = json.loads(_chat().body([Delta(1, "x", tool_calls=calls, done=done)]))
    assert whole["choices"][0]["finish_reason"] == said


def test_usage_comes_last_and_only_if_asked_for() -> None:
    *rest, last = _chunks(Delta(1, "a"), Delta(1, done=STOP), usage=True)
    assert last["choices"] == []
    assert last["usage"] == {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    assert not any("usage" in chunk for chunk in rest)


def test_logprobs_stay_with_their_chunk() -> None:
    logprobs = [TokenLogprob(b"a", -0.5, [(b"a", -0.5), (b"b", -2.0)])]
    first, end = _chunks(Delta(1, "a", logprobs=logprobs), Delta(1, done=STOP))
    (content,) = first["choices"][0]["logprobs"]["content"]
    assert content["top_logprobs"][1] == {"token": "b", "logprob": -2, "bytes": [98]}
    assert "logprobs" not in end["choices"][0]


def test_a_whole_completion() -> None:
    deltas = [Delta(1, thinking="hm"), Delta(1, "a"), Delta(1, "b", tool_calls=CALLS, done=STOP)]
    encoded = _chat().body(deltas)
    assert encoded.endswith(b"}\n")
    reply = json.loads(encoded)
    (choice,) = reply["choices"]
    assert list(reply) == [
        "id",
        "object",
        "created",
        "model",
        "system_fingerprint",
        "choices",
        "usage",
    ]
    assert (choice["message"]["content"], choice["message"]["reasoning"]) == ("ab", "hm")
    assert [call["index"] for call in choice["message"]["tool_calls"]] == [0, 1]
    assert choice["finish_reason"] == "tool_calls"


def test_an_error_within_a_stream_is_told_and_not_called_an_end() -> None:
    answer = _chat()
    sent = answer.lines([Delta(1, "a")]) + answer.broken(500, "the runner died")
    *_, last = events(sent)
    assert last.data["error"] == {
        "message": "the runner died",
        "type": "api_error",
        "param": None,
        "code": None,
    }


def test_a_prompt_that_is_shown() -> None:
    reply = json.loads(_chat().debug(Rendered(1, "<p>", 2)))
    assert reply["_debug_info"] == {"rendered_template": "<p>", "image_count": 2}
    assert reply["choices"][0]["finish_reason"] is None


# ------------------------------------------------------------------------------------ completions


def test_completions_say_their_reason_with_a_last_empty_text() -> None:
    answer = CompletionAnswer(CompletionRequest(model="m"))
    found = streamed(answer, Delta(1, "a", "thought"), Delta(1, done=STOP))
    choices = [event.data["choices"][0] for event in found[:-1]]
    assert [(c["text"], c["finish_reason"]) for c in choices] == [("a", None), ("", "stop")]
    assert found[-1].data == "[DONE]"
    assert not any("usage" in event.data for event in found[:-1])


def test_of_thoughts_a_completion_keeps_an_empty_chunk() -> None:
    answer = CompletionAnswer(CompletionRequest(model="m"))
    found = streamed(answer, Delta(1, thinking="hm"), Delta(1, "a"), Delta(1, done=STOP))
    assert [event.data["choices"][0]["text"] for event in found[:-1]] == ["", "a", ""]


def test_completions_with_usage_have_some_in_every_chunk() -> None:
    request = CompletionRequest(model="m", stream_options=StreamOptions(include_usage=True))
    found = streamed(CompletionAnswer(request), Delta(1, "a"), Delta(1, done=STOP))
    totals = [event.data["usage"]["total_tokens"] for event in found[:-1]]
    assert totals == [0, 0, 5]
    assert found[-2].data["choices"] == []


def test_a_whole_completion_of_text() -> None:
    deltas = [Delta(1, thinking="hm"), Delta(1, "a", done=STOP)]
    reply = json.loads(CompletionAnswer(CompletionRequest(model="m")).body(deltas))
    assert reply["choices"] == [{"text": "a", "index": 0, "finish_reason": "stop"}]


# ----------------------------------------------------------------------- embeddings, transcriptions


def test_vectors_as_numbers_and_as_base64_are_the_same() -> None:
    vectors = [[0.1, -2.0], [3.0, 1e-9]]
    numbers = json.loads(embedding_list("m", vectors, TextUsage(5, 5), ""))
    packed = json.loads(embedding_list("m", vectors, TextUsage(5, 5), "BASE64"))
    for one, other in zip(numbers["data"], packed["data"], strict=True):
        floats = struct.unpack("<2f", base64.b64decode(other["embedding"]))
        assert list(floats) == [
            struct.unpack("f", struct.pack("f", x))[0] for x in one["embedding"]
        ]
    assert numbers["usage"] == {"prompt_tokens": 5, "total_tokens": 5}
    assert [entry["index"] for entry in numbers["data"]] == [0, 1]


@pytest.mark.parametrize(("form", "body"), [(b"text", b"hi"), (b"json", b'{"text":"hi"}\n')])
def test_a_transcription_is_a_text(form: bytes, body: bytes) -> None:
    answer = TranscriptionAnswer({"model": b"m", "response_format": form})
    assert answer.body([Delta(1, " hi\n"), Delta(1, done=STOP)]) == body
