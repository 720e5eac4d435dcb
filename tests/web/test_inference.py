"""Generate, chat and embed through the real scheduler and runner, on the reference backend."""

from __future__ import annotations

import asyncio
import json
import math
from typing import Any

import pytest
from lhama_testing_http import Create, Reply, Server

from lhama.backends.reference.model import Behaviour

STATISTICS = ("total_duration", "load_duration", "prompt_eval_count", "prompt_eval_duration")
STATISTICS += ("eval_count", "eval_duration")


def _lines(reply: Reply) -> list[dict[str, Any]]:
    assert reply.header("content-type") == "application/x-ndjson"
    assert reply.body.endswith(b"\n")
    return [json.loads(line) for line in reply.body.splitlines()]


@pytest.fixture
async def ref(create: Create) -> str:
    await create("ref")
    return "ref"


async def test_a_stream_and_its_whole_say_the_same(server: Server, ref: str) -> None:
    options = {"num_predict": 6, "temperature": 0, "seed": 1}
    body = {"model": ref, "prompt": "Hi", "options": options}
    lines = _lines(await server.send("POST", "/api/generate", body))
    whole = await server.send("POST", "/api/generate", body | {"stream": False})
    assert whole.header("content-type") == "application/json; charset=utf-8"
    reply = whole.json()
    assert "".join(line["response"] for line in lines) == reply["response"]
    assert [line["done"] for line in lines] == [False] * (len(lines) - 1) + [True]
    assert lines[-1]["response"] == ""
    assert lines[-1]["context"] == reply["context"]
    assert reply["done_reason"] == "length"
    assert reply["eval_count"] == 6
    assert all(reply[name] > 0 for name in STATISTICS)


async def test_chat_has_no_context(server: Server, ref: str) -> None:
    messages = [{"role": "user", "content": "Hi"}]
    body = {"model": ref, "messages": messages, "options": {"num_predict": 3}}
    lines = _lines(await server.send("POST", "/api/chat", body))
    assert {line["message"]["role"] for line in lines} == {"assistant"}
    assert "context" not in lines[-1]
    assert lines[-1]["message"]["content"] == ""


async def test_load_and_unload(server: Server, ref: str) -> None:
    async def loaded() -> list[str]:
        return [m["name"] for m in (await server.send("GET", "/api/ps")).json()["models"]]

    for path, empty in (("/api/generate", {}), ("/api/chat", {"messages": []})):
        reply = await server.send("POST", path, {"model": ref, **empty})
        assert reply.json()["done_reason"] == "load"
        assert await loaded() == ["ref:latest"]
        reply = await server.send("POST", path, {"model": ref, "keep_alive": 0, **empty})
        assert reply.json()["done_reason"] == "unload"
        for _ in range(100):
            if not await loaded():
                break
            await asyncio.sleep(0.05)
        assert await loaded() == []


async def test_ps_shows_a_loaded_model(server: Server, ref: str) -> None:
    body = {"model": ref, "keep_alive": -1, "options": {"num_ctx": 512}}
    await server.send("POST", "/api/generate", body)
    (line,) = (await server.send("GET", "/api/ps")).json()["models"]
    assert list(line) == [
        *("name", "model", "size", "digest", "details", "expires_at", "size_vram"),
        "context_length",
    ]
    assert (line["context_length"], line["size_vram"]) == (512, 0)
    assert line["expires_at"] > "2200"
    assert "context_length" not in line["details"]


async def test_logprobs(server: Server, ref: str) -> None:
    body = {"model": ref, "prompt": "x", "logprobs": True, "top_logprobs": 2, "stream": False}
    body["options"] = {"num_predict": 4}
    found = (await server.send("POST", "/api/generate", body)).json()["logprobs"]
    assert len(found) == 4
    assert all(len(item["top_logprobs"]) == 2 and item["logprob"] <= 0 for item in found)
    body["logprobs"] = False
    assert "logprobs" not in (await server.send("POST", "/api/generate", body)).json()


async def test_prompts_are_rendered_for_debugging(server: Server, create: Create) -> None:
    history = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yo"}]
    await create("m", system="SYS", messages=history)
    turn = "<|im_start|>{}\n{}<|im_end|>\n".format
    end = "<|im_start|>assistant\n"
    past = turn("user", "hi") + turn("assistant", "yo")

    async def rendered(path: str, **members: Any) -> str:
        body = {"model": "m", "_debug_render_only": True, **members}
        reply = await server.send("POST", path, body)
        return str(reply.json()["_debug_info"]["rendered_template"])

    new = turn("user", "q") + end
    assert await rendered("/api/generate", prompt="q") == turn("system", "SYS") + past + new
    assert await rendered("/api/generate", prompt="q", raw=True) == "q"
    with_own = turn("system", "own") + past + new
    assert await rendered("/api/generate", prompt="q", system="own") == with_own
    asked = [{"role": "user", "content": "q"}]
    assert await rendered("/api/chat", messages=asked) == turn("system", "SYS") + past + new
    own = [{"role": "system", "content": "own"}, *asked]
    assert await rendered("/api/chat", messages=own) == past + turn("system", "own") + new
    template = "S={{ .System }} Q: {{ .Prompt }}"
    filled = await rendered("/api/generate", prompt="q", template=template, context=[])
    assert filled == "S=SYS Q: q"


@pytest.mark.parametrize("stream", [True, False])
async def test_an_error_before_the_first_line_has_its_status(
    server: Server, ref: str, stream: bool
) -> None:
    body = {"model": ref, "prompt": "x", "format": "xml", "stream": stream}
    reply = await server.send("POST", "/api/generate", body)
    assert reply.status == 500
    charset = "" if stream else "; charset=utf-8"
    assert reply.header("content-type") == "application/json" + charset
    assert reply.json()["error"] == (
        'invalid format: "\\"xml\\""; expected "json" or a valid JSON Schema object'
    )


async def test_an_error_after_the_first_line_is_the_last_line(
    server: Server, create: Create
) -> None:
    await create("crash", Behaviour(fault="crash", fault_step=4))
    body = {"model": "crash", "prompt": "x", "options": {"num_predict": 50}}
    reply = await server.send("POST", "/api/generate", body)
    lines = _lines(reply)
    assert reply.status == 200
    assert len(lines) > 1
    assert list(lines[-1]) == ["error"]
    assert "runner" in lines[-1]["error"]


async def test_a_bad_row_fails_one_request(server: Server, create: Create) -> None:
    await create("bad", Behaviour(fault="row", fault_step=1))
    body = {"model": "bad", "prompt": "x", "stream": False, "options": {"num_predict": 2}}
    reply = await server.send("POST", "/api/generate", body)
    assert reply.status == 500
    assert list(reply.json()) == ["error"]


async def test_capabilities_are_checked(server: Server, create: Create, ref: str) -> None:
    async def error(path: str, **members: Any) -> tuple[int, str]:
        reply = await server.send("POST", path, members)
        return reply.status, reply.json()["error"]

    name = "registry.ollama.ai/library/ref:latest"
    suffix = await error("/api/generate", model=ref, prompt="x", suffix="y")
    assert suffix == (400, f"{name} does not support insert")
    tool = {"type": "function", "function": {"name": "f"}}
    tools = await error("/api/chat", model=ref, messages=[], tools=[tool])
    assert tools == (400, f"{name} does not support tools")
    think = await error("/api/chat", model=ref, messages=[], think="high")
    assert think == (400, '"ref" does not support thinking')
    await create("emb", Behaviour(pooling=1))
    assert await error("/api/generate", model="emb") == (400, '"emb" does not support generate')
    assert await error("/api/chat", model="emb") == (400, '"emb" does not support chat')
    cloud = await error("/api/chat", model="gpt-oss:120b-cloud")
    assert cloud == (403, "ollama cloud is disabled: remote model is unavailable")


async def test_embeddings(server: Server, create: Create) -> None:
    await create("emb", Behaviour(pooling=1))
    body = {"model": "emb", "input": ["hello", "bye"], "dimensions": 4}
    reply = (await server.send("POST", "/api/embed", body)).json()
    assert list(reply) == [
        *("model", "embeddings", "total_duration", "load_duration", "prompt_eval_count"),
    ]
    for vector in reply["embeddings"]:
        assert len(vector) == 4
        assert math.isclose(sum(x * x for x in vector), 1, rel_tol=1e-5)
    assert reply["prompt_eval_count"] == len("hello") + len("bye")
    empty = await server.send("POST", "/api/embed", {"model": "emb", "input": []})
    assert empty.body == b'{"model":"emb","embeddings":[]}'
    old = await server.send("POST", "/api/embeddings", {"model": "emb", "prompt": "hello"})
    assert len(old.json()["embedding"]) == 8
    assert (await server.send("POST", "/api/embeddings", {"model": "emb"})).body == (
        b'{"embedding":[]}'
    )


async def test_a_client_that_goes_frees_its_slot(server: Server, create: Create) -> None:
    """Every slot is taken for minutes; once the clients are gone the next one gets through."""
    await create("slow", Behaviour(compute_us=50_000))
    body = json.dumps({"model": "slow", "prompt": "x", "options": {"num_predict": 4000}})
    head = f"POST /api/generate HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
    writers = []
    for _ in range(8):  # more than there are slots
        reader, writer = await asyncio.open_connection("127.0.0.1", server.settings.port)
        writer.write((head + body).encode())
        writers.append(writer)
        if len(writers) == 1:
            await reader.readuntil(b"response")  # the model is loaded and answers
    for writer in writers:
        writer.close()
    quick = {"model": "slow", "prompt": "y", "stream": False, "options": {"num_predict": 2}}
    async with asyncio.timeout(10):
        reply = await server.send("POST", "/api/generate", quick)
    assert reply.json()["eval_count"] == 2
