"""Replies encoded to the byte as a real Ollama server sent them."""

from __future__ import annotations

import json
import random
import struct

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lhama_testing_golden import Recording, recordings

from lhama.daemon.protocol import goencode, replies
from lhama.daemon.wire import messages as wire


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0.0, b"0"),
        (1.0, b"1"),
        (-2.5, b"-2.5"),
        (1e16, b"10000000000000000"),
        (1e20, b"100000000000000000000"),
        (1e21, b"1e+21"),
        (1e-6, b"0.000001"),
        (1e-7, b"1e-7"),
        (-1.5e-9, b"-1.5e-9"),
        (5e-324, b"5e-324"),
        (0.1, b"0.1"),
    ],
)
def test_floats(value: float, expected: bytes) -> None:
    assert goencode.go_float(value) == expected


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_floats_come_back(value: float) -> None:
    assert float(goencode.go_float(value)) == value


def test_float32_lists_are_short_and_exact() -> None:
    rng = random.Random(7)
    values = [goencode.float32(rng.gauss(0, 0.05)) for _ in range(2000)] + [0.0, 1.0, 1e-8, -3e9]
    text = bytes(goencode.float32_list(values)).decode()
    read = [struct.unpack("f", struct.pack("f", v))[0] for v in json.loads(text)]
    assert read == [goencode.float32(v) for v in values]
    assert max(len(part.lstrip("-").replace(".", "").lstrip("0")) for part in text.split(",")) <= 12


_FLOAT32 = st.floats(allow_nan=False, allow_infinity=False, allow_subnormal=False, width=32)


@given(st.lists(_FLOAT32, max_size=20))
def test_float32_lists_have_the_fewest_digits(values: list[float]) -> None:
    text = bytes(goencode.float32_list(values)).decode()
    expected = [goencode.go_float(float(_fewest_digits(value))).decode() for value in values]
    assert text == f"[{','.join(expected)}]"


def _fewest_digits(value: float) -> str:
    texts = (f"{value:.{digits}g}" for digits in range(1, 10))
    return next(text for text in texts if goencode.float32(float(text)) == value)


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=20))
def test_float64_lists_are_what_single_floats_are(values: list[float]) -> None:
    text = bytes(goencode.float64_list(values)).decode()
    assert text == f"[{','.join(goencode.go_float(value).decode() for value in values)}]"


def _is_embed(recording: Recording) -> bool:
    return recording.path == "/api/embed" and recording.status == 200


def _succeeded(recording: Recording) -> bool:
    return recording.status == 200


@pytest.mark.parametrize("recording", recordings("embedmodel", where=_is_embed))
def test_recorded_vectors(recording: Recording) -> None:
    """Vectors of a real server, rounded to float32 and written again, are the same text."""
    reply = json.loads(recording.reply)
    raw = msgspec.json.decode(recording.reply.encode(), type=dict[str, msgspec.Raw])
    texts = msgspec.json.decode(raw["embeddings"], type=list[msgspec.Raw])
    for vector, text in zip(reply["embeddings"], texts, strict=True):
        assert bytes(goencode.float32_list(vector)) == bytes(text)


def test_html_is_escaped() -> None:
    assert goencode.encode({"a": "<b>&\u2028\u2029"}) == (
        rb'{"a":"\u003cb\u003e\u0026\u2028\u2029"}'
    )


def test_map_keys_are_sorted_at_every_depth() -> None:
    value = {"b": [{"z": 1.0, "a": None}], "a": True}
    assert goencode.encode_any(value) == b'{"a":true,"b":[{"a":null,"z":1}]}'
    assert goencode.encode_any(value, sort_keys=False) == b'{"b":[{"z":1,"a":null}],"a":true}'


@pytest.mark.parametrize(
    "recording", recordings("generate", "chat", "think", "suffix", where=_succeeded)
)
def test_recorded_replies_come_out_byte_for_byte(recording: Recording) -> None:
    """A recorded line read into the reply struct and encoded again is the same line."""
    reply = replies.ChatReply if recording.path == "/api/chat" else replies.GenerateReply
    for line in recording.reply.splitlines():
        decoded = msgspec.json.decode(line, type=reply)
        assert goencode.encode(decoded).decode() == line


@pytest.mark.parametrize("recording", recordings("tools", where=lambda r: "tool_calls" in r.reply))
def test_recorded_tool_calls(recording: Recording) -> None:
    for line in recording.reply.splitlines():
        reply = json.loads(line)
        for call in reply.get("message", {}).get("tool_calls", []):
            found = wire.ToolCall(
                call["function"]["name"], call["function"]["arguments"], 0, call["id"]
            )
            assert goencode.encode(replies.tool_calls([found])).decode() in line


def _streams(recording: Recording) -> bool:
    return recording.reply.count("\n") > 1 and "logprobs" not in recording.reply


@pytest.mark.parametrize("recording", recordings("generate", "chat", where=_streams))
def test_chunks_are_recorded_lines(recording: Recording) -> None:
    """The fast encoder of plain text chunks writes what the server wrote."""
    chat = recording.path == "/api/chat"
    for line in recording.reply.splitlines()[:-1]:
        reply = json.loads(line)
        text = reply["message"]["content"] if chat else reply["response"]
        encoder = replies.ChunkEncoder(reply["model"], chat=chat)
        assert encoder.text(reply["created_at"], text).decode() == line + "\n"


@pytest.mark.parametrize(
    "recording", recordings("generate", "chat", where=lambda r: "logprobs" in r.reply)
)
def test_recorded_logprobs(recording: Recording) -> None:
    found = [
        item
        for line in recording.reply.splitlines()
        for item in json.loads(line).get("logprobs", [])
    ]
    items = [
        wire.TokenLogprob(
            bytes(item["bytes"]),
            item["logprob"],
            [(bytes(t["bytes"]), t["logprob"]) for t in item.get("top_logprobs", [])],
        )
        for item in found
    ]
    for item, original in zip(replies.logprobs(items), found, strict=True):
        text = json.dumps(original, separators=(",", ":"), ensure_ascii=False)
        assert goencode.encode(item).decode() == goencode.escape(text.encode()).decode()


def test_runner_errors_nest_their_json() -> None:
    text = replies.runner_error_text(
        "request (610 tokens) exceeds the available context size (256 tokens), try increasing it",
        400,
        "exceed_context_size_error",
        {"n_prompt_tokens": 610, "n_ctx": 256},
    )
    assert replies.error_body(text).decode() == (
        r'{"error":"{\"error\":{\"code\":400,\"message\":\"request (610 tokens) exceeds the '
        r"available context size (256 tokens), try increasing it\",\"type\":"
        r'\"exceed_context_size_error\",\"n_prompt_tokens\":610,\"n_ctx\":256}}"}'
    )
