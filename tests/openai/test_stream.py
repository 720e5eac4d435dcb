"""Answers as servers write them, to pieces; the shapes were seen on the wire of each."""

from __future__ import annotations

import json
from typing import Any

import pytest
from lhama_openai.stream import AnswerReader, complaint

from lhama.plugins.text import Call, End, Logprob, Piece, TextError


def sse(*events: Any, done: bool = True) -> bytes:
    texts = [e if isinstance(e, str) else f"data: {json.dumps(e)}" for e in events]
    return "".join(f"{text}\n\n" for text in [*texts, *(["data: [DONE]"] if done else [])]).encode()


def delta(finish: str | None = None, **said: Any) -> dict[str, Any]:
    choice = {"index": 0, "delta": said, "finish_reason": finish}
    return {"object": "chat.completion.chunk", "choices": [choice]}


USAGE = {
    "choices": [],
    "usage": {
        "prompt_tokens": 31,
        "completion_tokens": 3,
        "total_tokens": 34,
        "prompt_tokens_details": {"cached_tokens": 7},
    },
}

LLAMA_SERVER = sse(
    delta(role="assistant", content=None),
    delta(reasoning_content="Hm — "),
    delta(content="Grüße"),
    delta(content=" 🦙!"),
    delta("length"),
    {**USAGE, "timings": {"cache_n": 7}},
)
VLLM = sse(
    delta(role="assistant", content=""),
    delta(reasoning="Hm — ", reasoning_content="Hm — "),
    delta(content="Grüße"),
    delta("length", content=" 🦙!"),
    USAGE,
)
OLLAMA = sse(
    ": a comment that keeps the connection",
    delta(role="assistant", content="", reasoning="Hm — "),
    delta(role="assistant", content="Grüße"),
    delta(role="assistant", content=" 🦙!"),
    {**delta("length", role="assistant", content=""), "usage": None},
    USAGE,
)
SAID = [Piece(thinking="Hm — "), Piece("Grüße"), Piece(" 🦙!"), End("length", 31, 3, 7)]


@pytest.mark.parametrize("answer", [LLAMA_SERVER, VLLM, OLLAMA], ids=["llama", "vllm", "ollama"])
def test_every_server_is_understood(answer: bytes) -> None:
    assert list(AnswerReader().feed(answer)) == SAID


@pytest.mark.parametrize("newline", [b"\n", b"\r\n"])
def test_it_does_not_matter_how_the_network_cuts_it(newline: bytes) -> None:
    answer = VLLM.replace(b"\n", newline)
    for size in range(1, 80):
        reader = AnswerReader()
        cut = [answer[at : at + size] for at in range(0, len(answer), size)]
        assert [news for data in cut for news in reader.feed(data)] == SAID


def calls(*fragments: dict[str, Any]) -> list[Piece | End]:
    events = [delta(tool_calls=[fragment]) for fragment in fragments]
    return list(AnswerReader().feed(sse(*events, delta("tool_calls"))))


def fragment(index: int, id: str | None = None, **function: str) -> dict[str, Any]:
    return {"index": index, **({"id": id, "type": "function"} if id else {}), "function": function}


TWO = [
    Piece(calls=(Call("add", {"a": 1, "b": 2}, "c1"),)),
    Piece(calls=(Call("now", {}, "c2"),)),
    End("stop", 0, 2),
]


def test_calls_in_fragments_come_whole() -> None:
    found = calls(
        fragment(0, "c1", name="add", arguments=""),
        fragment(0, arguments='{"a": 1,'),
        fragment(0, arguments=' "b": 2}'),
        fragment(1, "c2", name="now", arguments=""),
    )
    assert found == TWO


def test_whole_calls_come_as_they_are() -> None:
    both = (
        fragment(0, "c1", name="add", arguments='{"a": 1, "b": 2}'),
        fragment(1, "c2", name="now", arguments="{}"),
    )
    assert calls(*both) == TWO


def test_calls_that_share_an_index_are_told_by_their_ids() -> None:
    both = (
        fragment(0, "c1", name="add", arguments='{"a": 1, "b": 2}'),
        fragment(0, "c2", name="now", arguments="{}"),
    )
    assert calls(*both) == TWO


def test_a_call_that_is_cut_by_the_limit_is_no_call() -> None:
    whole = fragment(0, "c1", name="now", arguments="{}")
    cut = fragment(1, "c2", name="add", arguments='{"a": 1,')
    events = [delta(tool_calls=[whole]), delta(tool_calls=[cut]), delta("length")]
    assert list(AnswerReader().feed(sse(*events))) == [
        Piece(calls=(Call("now", {}, "c1"),)),
        End("length", 0, 1),
    ]


def test_log_probabilities() -> None:
    one = {"token": "é", "logprob": -0.5, "bytes": [195, 169], "top_logprobs": []}
    other = {"token": "x", "logprob": -2.0, "bytes": None}
    event = delta(content="é")
    event["choices"][0]["logprobs"] = {"content": [{**one, "top_logprobs": [one, other]}]}
    [piece, _] = AnswerReader().feed(sse(event, delta("stop")))
    assert piece == Piece(
        "é", logprobs=(Logprob("é".encode(), -0.5, (("é".encode(), -0.5), (b"x", -2.0))),)
    )


def test_completions_have_text() -> None:
    chunk = {"object": "text_completion", "choices": [{"index": 0, "text": "and so on"}]}
    last = {"choices": [{"index": 0, "text": "", "finish_reason": "stop"}]}
    assert list(AnswerReader().feed(sse(chunk, last))) == [Piece("and so on"), End("stop", 0, 1)]


def test_an_end_without_done_is_an_end() -> None:
    reader = AnswerReader()
    answer = sse(delta(content="a"), delta("stop"), done=False)
    assert list(reader.feed(answer)) == [Piece("a")]
    assert reader.finish() == [End("stop", 0, 1)]
    assert reader.finish() == []


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (sse({"error": {"message": "out of blocks", "code": 500}}, done=False), "out of blocks"),
        (sse('error: {"code": 400, "message": "too long"}', done=False), "too long"),
        (sse("data: {broken", done=False), "not OpenAI's"),
        (sse({"choices": 5}), "not OpenAI's"),
        (sse({"choices": [{"delta": {"content": 5}}]}), "not OpenAI's"),
        (sse("data: " + "[" * 100_000, done=False), "not OpenAI's"),
        (sse(delta(content="a")), "broke off"),
        (sse(delta(tool_calls=[fragment(0, "c", name="f", arguments="{a")]), delta("stop")), "f "),
    ],
)
def test_what_goes_wrong_is_said(answer: bytes, said: str) -> None:
    with pytest.raises(TextError, match=said):
        list(AnswerReader().feed(answer))


def test_an_endless_line_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lhama_openai.stream.LONGEST_LINE", 1000)
    with pytest.raises(TextError, match="too long"):
        list(AnswerReader().feed(b"data: " + b"x" * 2000))


@pytest.mark.parametrize(
    "error",
    [
        {"error": {"message": "no"}},
        {"error": "no"},
        {"detail": "no"},
        {"object": "error", "message": "no"},
        "no",
    ],
)
def test_errors_have_many_forms(error: Any) -> None:
    assert complaint(error) == "no"
