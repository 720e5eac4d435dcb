"""Deltas become Ollama's lines and bodies."""

from __future__ import annotations

import json
import time

import pytest

from lhama.daemon.protocol.answers import ChatAnswer, GenerateAnswer, NativeAnswer
from lhama.daemon.wire.messages import Delta, Done, Rendered, TokenLogprob, ToolCall

DONE = Done("stop", prompt_tokens=3, prompt_ns=5, eval_tokens=2, eval_ns=0, context=[1, 2])


def _lines(answer: NativeAnswer, *deltas: Delta) -> list[dict[str, object]]:
    return [json.loads(x) for x in answer.lines(list(deltas)).splitlines()]


def test_a_stream_ends_with_an_empty_line_of_counts() -> None:
    answer = GenerateAnswer("m", time.monotonic_ns(), load_ns=7)
    text, end = _lines(answer, Delta(1, "Hi <b>"), Delta(1, done=DONE))
    assert list(text) == ["model", "created_at", "response", "done"]
    assert (text["response"], end["response"], end["done_reason"]) == ("Hi <b>", "", "stop")
    assert list(end)[4:] == [
        "done_reason",
        "context",
        "total_duration",
        "load_duration",
        "prompt_eval_count",
        "prompt_eval_duration",
        "eval_count",
        "eval_duration",
    ]
    assert all(end[k] for k in end if k.endswith(("duration", "count")))


@pytest.mark.parametrize("kind", [GenerateAnswer, ChatAnswer])
def test_the_last_line_has_what_the_end_brought_to_light(kind: type[NativeAnswer]) -> None:
    """The text of a call that never was one, say; what log-probabilities belong to it came before."""
    call = ToolCall("f", {}, id="call_x")
    logprobs = [TokenLogprob(b"x", -1.5)]
    end = Delta(1, '{"x', "hm", [call], logprobs, done=DONE)
    first, last = _lines(kind("m"), end)
    assert (first["done"], len(first["logprobs"])) == (False, 1)  # type: ignore[arg-type]
    assert (last["done"], "logprobs" in last) == (True, False)
    said: dict[str, object] = last["message"] if kind is ChatAnswer else last  # type: ignore[assignment]
    assert said["content" if kind is ChatAnswer else "response"] == '{"x'
    assert said["thinking"] == "hm"
    assert len(said["tool_calls"]) == 1  # type: ignore[arg-type]


def test_a_body_joins_the_deltas() -> None:
    call = ToolCall("f", {"b": 1.0, "a": "<"}, id="call_x")
    deltas = [
        Delta(1, thinking="hm", logprobs=[TokenLogprob(b"hm", 0.0)]),
        Delta(1, "a"),
        Delta(1, "b", tool_calls=[call], done=DONE),
    ]
    body = ChatAnswer("m", 1).body(deltas)
    reply = json.loads(body)
    assert reply["message"]["content"] == "ab"
    assert reply["message"]["thinking"] == "hm"
    assert b'"arguments":{"b":1,"a":"\\u003c"}' in body
    assert reply["logprobs"] == [{"token": "hm", "logprob": 0, "bytes": [104, 109]}]
    assert "context" not in reply


@pytest.mark.parametrize("kind", [GenerateAnswer, ChatAnswer])
def test_a_chunk_of_logprobs_alone_is_sent(kind: type[NativeAnswer]) -> None:
    (line,) = _lines(kind("m"), Delta(1, logprobs=[TokenLogprob(b"\xf0", -1.5)]))
    assert line["done"] is False
    assert line["logprobs"] == [{"token": "�", "logprob": -1.5, "bytes": [240]}]


def test_an_empty_delta_sends_nothing() -> None:
    assert GenerateAnswer("m").lines([Delta(1)]) == b""


def test_control_and_debug_replies() -> None:
    load = json.loads(ChatAnswer("m").control("load"))
    assert load["message"] == {"role": "assistant", "content": ""}
    assert (load["done"], load["done_reason"]) == (True, "load")
    debug = json.loads(GenerateAnswer("m").debug(Rendered(1, "text", images=2)))
    assert debug["_debug_info"] == {"rendered_template": "text", "image_count": 2}
    assert debug["done"] is False
    assert json.loads(ChatAnswer("m").debug(Rendered(1, "t")))["message"]["role"] == ""
