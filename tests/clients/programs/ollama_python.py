"""Ollama's own Python package, the base of many others."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import harness
import ollama
from harness import CHAT, CRASH, EMBED, ENDLESS, QUESTION, SCHEMA, TOOLS, check, fails

CLIENT, PACKAGES = "ollama (Python)", ["ollama"]

GREEDY = {"temperature": 0, "num_predict": 8}
ASKED = [{"role": "user", "content": "Why is the sky blue?"}]
client = ollama.Client(harness.URL)


@check("list, show")
def _() -> None:
    names = {model.model for model in client.list().models}
    assert {CHAT, f"{TOOLS}:latest", f"{EMBED}:latest"} <= names
    shown = client.show(CHAT)
    assert shown.modelinfo["general.architecture"] == "llama"
    assert "completion" in shown.capabilities


@check("chat")
def _() -> None:
    reply = client.chat(CHAT, ASKED, options=GREEDY)
    assert (reply.message.role, reply.done_reason, reply.eval_count) == ("assistant", "length", 8)


@check("streaming")
def _() -> None:
    whole = client.generate(CHAT, "Why is the sky blue?", options=GREEDY)
    parts = list(client.generate(CHAT, "Why is the sky blue?", options=GREEDY, stream=True))
    assert "".join(part.response for part in parts) == whole.response
    assert parts[-1].done


@check("tools")
def _() -> None:
    asked = [{"role": "user", "content": QUESTION}]
    options = {"temperature": 0}
    reply = client.chat(TOOLS, asked, tools=[harness.get_weather], options=options)
    (call,) = reply.message.tool_calls
    assert (call.function.name, call.function.arguments) == ("get_weather", {"city": "Paris"})
    result = {"role": "tool", "content": "Sunny", "tool_name": "get_weather"}
    final = client.chat(
        TOOLS, [*asked, reply.message, result], tools=[harness.get_weather], options=options
    )
    assert final.message.content
    assert not final.message.tool_calls


@check("structured output")
def _() -> None:
    reply = client.chat(CHAT, ASKED, format=SCHEMA, options={"temperature": 0})
    assert '"color"' in reply.message.content


@check("embeddings")
def _() -> None:
    reply = client.embed(EMBED, ["hello", "bye"])
    assert [len(vector) for vector in reply.embeddings] == [384, 384]


@check("cancel in mid-stream")
def _() -> None:
    parts = client.generate(ENDLESS, "x", stream=True)
    for _ in range(3):
        next(parts)
    parts.close()
    harness.stopped()


@check("errors")
def _() -> None:
    error = fails(lambda: client.chat("nope", ASKED), ollama.ResponseError)
    assert (error.status_code, error.error) == (404, "model 'nope' not found")
    broken = fails(lambda: list(client.generate(CRASH, "x", stream=True)), ollama.ResponseError)
    assert "SIGKILL" in broken.error


@check("concurrent use")
def _() -> None:
    def ask(_: int) -> str:
        return client.chat(CHAT, ASKED, options=GREEDY).message.content

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(ask, range(8)))) == 1


@check("async")
async def _() -> None:
    async with ollama.AsyncClient(harness.URL) as asynchronous:
        stream = await asynchronous.chat(CHAT, ASKED, options=GREEDY, stream=True)
        parts = [part async for part in stream]
        vectors = await asyncio.gather(*(asynchronous.embed(EMBED, str(n)) for n in range(4)))
    assert parts[-1].done
    assert len(vectors) == 4
