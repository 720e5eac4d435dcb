"""OpenAI's and Anthropic's routes through the real scheduler and runner, on the reference backend."""

from __future__ import annotations

import asyncio
import base64
import json
import struct
from pathlib import Path
from typing import Any

import pytest
from lhama_testing_events import Event, events
from lhama_testing_http import Create, Reply, Server, create_reference, serving

from lhama.backends.reference.model import Behaviour

ASKED = [{"role": "user", "content": "hi"}]
BODIES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": ASKED, "max_tokens": 6, "temperature": 0},
    "/v1/completions": {"prompt": "hi", "max_tokens": 6, "temperature": 0},
    "/v1/responses": {"input": "hi", "max_output_tokens": 6, "temperature": 0},
    "/v1/messages": {"messages": ASKED, "max_tokens": 6, "temperature": 0},
}
ROUTES = (*BODIES, "/v1/embeddings", "/v1/rerank", "/v1/messages/count_tokens")
MALFORMED = (
    b"",
    b"{",
    b"[1]",
    b'"x"',
    b'{"model":5}',
    b'{"model":"ref","messages":{"a":1},"input":{"a":1},"prompt":{"a":1}}',
    b'{"model":"ref","messages":[5],"input":[5],"prompt":[5],"max_tokens":1}',
    b'{"model":"ref","messages":[{"role":"user","content":{}}],"input":7,"prompt":7,"max_tokens":1}',
    b'{"model":"ref","max_tokens":"x","max_output_tokens":"x","dimensions":"x","messages":5}',
    b"[" * 20_000,
    b'{"model":"\xff\xfe","messages":[{"content":"\\ud800"}],"input":"a","prompt":"a","max_tokens":0}',
)


def _text(found: list[Event]) -> str:
    """All text of a stream, whatever the protocol."""
    text = ""
    for event in found:
        match event.data:
            case {"choices": [{"delta": {"content": str(part)}}]}:
                text += part
            case {"choices": [{"text": str(part)}]}:
                text += part
            case {"type": "response.output_text.delta", "delta": part}:
                text += part
            case {"delta": {"type": "text_delta", "text": part}}:
                text += part
    return text


def _whole_text(body: Any) -> str:
    match body:
        case {"choices": [{"message": {"content": text}}]} | {"choices": [{"text": text}]}:
            return str(text)
        case {"output": [{"content": [{"text": text}]}]} | {"content": [{"text": text}]}:
            return str(text)
    raise AssertionError(body)


def _error(path: str, body: Any) -> dict[str, Any]:
    """What an error body says, which must be this path's protocol's."""
    if path.startswith("/v1/messages"):
        assert body["type"] == "error"
        assert body["request_id"].startswith("req_")
        assert list(body["error"]) == ["type", "message"]
    else:
        assert list(body["error"]) == ["message", "type", "param", "code"]
    error: dict[str, Any] = body["error"]
    return error


async def test_a_stream_and_its_whole_say_the_same(server: Server, create: Create) -> None:
    await create("ref")
    for path, given in BODIES.items():
        body = {"model": "ref", **given}
        whole = await server.send("POST", path, body)
        assert (whole.status, whole.header("content-type")) == (200, "application/json")
        streamed = await server.send("POST", path, {**body, "stream": True})
        assert streamed.header("content-type") == "text/event-stream"
        text = _text(events(streamed.body))
        assert text == _whole_text(whole.json())
        assert len(text) == 6


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
async def test_a_prompt_cannot_be_shown_in_a_stream(
    path: str, server: Server, create: Create
) -> None:
    """One chunk without text, and no end."""
    await create("ref")
    body = {"model": "ref", **BODIES[path], "stream": True, "_debug_render_only": True}
    reply = await server.send("POST", path, body)
    assert reply.header("content-type") == "text/event-stream"
    (event,) = events(reply.body)
    (choice,) = event.data["choices"]
    assert choice["finish_reason"] is None
    assert choice.get("delta", choice) in (
        {"role": "assistant", "content": ""},
        {"text": "", "index": 0, "finish_reason": None},
    )
    assert "_debug_info" not in event.data


@pytest.mark.parametrize("path", BODIES)
async def test_a_crash_within_a_stream_is_told_in_the_stream(
    path: str, server: Server, create: Create
) -> None:
    await create("crash", Behaviour(fault="crash", fault_step=4))
    reply = await server.send("POST", path, {"model": "crash", **BODIES[path], "stream": True})
    assert reply.status == 200
    *sent, last = events(reply.body)
    assert _text(sent)
    if path == "/v1/responses":
        assert last.name == "response.failed"
        assert "SIGKILL" in last.data["response"]["error"]["message"]
    else:
        assert last.name == ("error" if path == "/v1/messages" else "")
        assert "SIGKILL" in _error(path, last.data)["message"]


async def test_a_failure_before_the_first_token_has_its_status(
    server: Server, create: Create
) -> None:
    await create("broken", Behaviour(fault="load"))
    for stream, (path, body) in enumerate(BODIES.items()):  # a load takes a while: one each
        body = {"model": "broken", **body, "stream": stream % 2 == 1}
        reply = await server.send("POST", path, body)
        assert (reply.status, reply.header("content-type")) == (500, "application/json")
        assert _error(path, reply.json())["type"] == "api_error"


async def test_a_full_queue_says_when_to_come_back(tmp_path: Path) -> None:
    async with serving(tmp_path / "models", max_queue=1) as server:
        await create_reference(server, tmp_path, "slow", Behaviour(load_us=400_000))
        asked = [(path, {"model": "slow", **body}) for path, body in BODIES.items()] * 2
        replies = await asyncio.gather(*(server.send("POST", *each) for each in asked))
        refused = [
            (path, r) for (path, _), r in zip(asked, replies, strict=True) if r.status == 503
        ]
        assert refused
        for path, reply in refused:
            assert reply.header("retry-after") == "1"
            assert _error(path, reply.json())["message"].startswith("server busy")


async def test_an_empty_store_lists_no_models(server: Server) -> None:
    reply = await server.send("GET", "/v1/models")
    assert reply.json() == {"object": "list", "data": []}


@pytest.mark.parametrize("path", ROUTES)
async def test_malformed_bodies(path: str, server: Server) -> None:
    for body in MALFORMED:
        reply = await server.send("POST", path, body)
        assert reply.status in (400, 404), (body[:60], reply.body)
        error = _error(path, reply.json())
        assert error["message"], body[:60]
        assert error["type"] in ("invalid_request_error", "not_found_error")


async def test_models(server: Server, create: Create) -> None:
    await create("one")
    await create("me/two:tag")
    listed = (await server.send("GET", "/v1/models")).json()
    by_id = {m["id"]: m for m in listed["data"]}
    assert {(m["id"], m["owned_by"]) for m in listed["data"]} == {
        ("me/two:tag", "me"),
        ("one:latest", "library"),
    }
    one = (await server.send("GET", "/v1/models/One")).json()
    assert one == {**by_id["one:latest"], "id": "One"}
    missing = await server.send("GET", "/v1/models/nope")
    assert (missing.status, _error("", missing.json())["type"]) == (404, "not_found_error")


async def test_vectors_are_cut_and_packed(server: Server, create: Create) -> None:
    await create("emb", Behaviour(pooling=1))
    body = {"model": "emb", "input": ["a", "b"], "dimensions": 4}
    numbers = (await server.send("POST", "/v1/embeddings", body)).json()
    packed = await server.send("POST", "/v1/embeddings", {**body, "encoding_format": "base64"})
    assert packed.header("content-type") == "application/json"
    for one, other in zip(numbers["data"], packed.json()["data"], strict=True):
        floats = struct.unpack("<4f", base64.b64decode(other["embedding"]))
        assert floats == pytest.approx(one["embedding"])
        assert sum(x * x for x in floats) == pytest.approx(1)


async def test_counted_tokens_are_the_prompts(server: Server, create: Create) -> None:
    await create("ref")
    body = {"model": "ref", "system": "Be.", **BODIES["/v1/messages"]}
    counted = (await server.send("POST", "/v1/messages/count_tokens", body)).json()
    answered = (await server.send("POST", "/v1/messages", body)).json()
    assert counted == {"input_tokens": answered["usage"]["input_tokens"]}


@pytest.mark.parametrize("stream", [False, True])
async def test_a_request_that_asks_nothing_only_loads(
    stream: bool, server: Server, create: Create
) -> None:
    await create("ref")
    nothing = [{"role": "user", "content": []}]
    body = {"model": "ref", "messages": nothing, "max_tokens": 1, "stream": stream}
    chat = await server.send("POST", "/v1/chat/completions", body)
    message = await server.send("POST", "/v1/messages", body)
    if stream:
        assert events(chat.body)[-2].data["choices"][0]["finish_reason"] == "load"
        assert events(message.body)[-1].name == "message_stop"
    else:
        assert chat.json()["choices"][0]["finish_reason"] == "load"
        assert message.json()["stop_reason"] == "stop_sequence"


# ---------------------------------------------------------------------------------- transcriptions


def _form(*fields: tuple[str, bytes]) -> tuple[bytes, dict[str, str]]:
    parts = [
        b'--b\r\nContent-Disposition: form-data; name="%b"%b\r\n\r\n%b\r\n'
        % (name.encode(), b'; filename="a.wav"' if name == "file" else b"", value)
        for name, value in fields
    ]
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    return b"".join(parts) + b"--b--\r\n", headers


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ([], "model is required"),
        ([("model", b"ref")], "file is required: http: no such file"),
        ([("model", b"ref"), ("file", b"")], "audio file is empty"),
    ],
)
async def test_forms_that_lack_something(
    fields: list[tuple[str, bytes]], text: str, server: Server
) -> None:
    body, headers = _form(*fields)
    reply = await server.send("POST", "/v1/audio/transcriptions", body, headers)
    assert (reply.status, _error("", reply.json())["message"]) == (400, text)


async def test_a_recording_reaches_the_model(server: Server, create: Create) -> None:
    await create("ref")
    body, headers = _form(("file", b"RIFF\r\n\0\xff" * 9), ("model", b"ref"), ("language", b"pt"))
    reply = await server.send("POST", "/v1/audio/transcriptions", body, headers)
    # The reference model is deaf; that it says so means that it was given something to hear.
    assert reply.status == 400
    assert (
        "does not support multimodal"
        in json.loads(_error("", reply.json())["message"])["error"]["message"]
    )


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("multipart/form-data", b""),
        ("multipart/form-data; boundary=b", b"nothing of the kind"),
        ("multipart/form-data; boundary=b", b"--b\r\nbad header\r\n\r\nx"),
    ],
)
async def test_bodies_that_are_no_form(kind: str, body: bytes, server: Server) -> None:
    headers = {"Content-Type": kind}
    reply: Reply = await server.send("POST", "/v1/audio/transcriptions", body, headers)
    assert reply.status == 400
    assert _error("", reply.json())["type"] == "invalid_request_error"


# ------------------------------------------------------------------------------------- truncation


@pytest.mark.parametrize("stream", [False, True])
async def test_a_cut_prompt_is_told_in_a_header_and_in_the_usage(
    stream: bool, server: Server, create: Create
) -> None:
    await create("small", parameters={"num_ctx": 256})
    turns = [{"role": "user", "content": f"{n} " + "x" * 60} for n in range(8)]
    body = {"model": "small", "max_tokens": 2, "stream": stream}
    for path in ("/api/chat", "/v1/chat/completions", "/v1/responses", "/v1/messages"):
        for messages, cut in ((turns, True), (turns[-1:], False)):
            asked = {"input" if path == "/v1/responses" else "messages": messages}
            usage = {"stream_options": {"include_usage": True}} if "completions" in path else {}
            reply = await server.send("POST", path, {**body, **asked, **usage})
            header = reply.header("lhama-truncated-tokens")
            told = [part for part in reply.body.split(b"\n") if b'"truncated_tokens":' in part]
            # Ollama's own replies have no place for it: they stay as they are.
            in_body = cut and path != "/api/chat"
            assert (header is not None, len(told)) == (cut, int(in_body)), (path, reply.body)
            if in_body:
                assert header is not None
                assert f'"truncated_tokens":{header}'.encode() in told[0]
                assert int(header) > 256


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/responses"])
async def test_an_error_in_a_streams_place_has_its_headers(server: Server, path: str) -> None:
    body = {"model": "nope", "input": "x", "max_tokens": 1}
    body["messages"] = [{"role": "user", "content": "x"}]
    for stream, caching in ((True, "no-cache"), (False, None)):
        reply = await server.ask(f"POST {path}", {**body, "stream": stream})
        assert (reply.status, reply.header("cache-control")) == (404, caching)
    refused = await server.ask(f"POST {path}", {**body, "stream": True, "model": 5})
    assert (refused.status, refused.header("cache-control")) == (400, None)
