"""Anthropic's Python package on /v1/messages."""

from __future__ import annotations

import asyncio

import anthropic
import harness
from harness import CHAT, CRASH, ENDLESS, QUESTION, TOOLS, check, fails

CLIENT, PACKAGES = "anthropic (Python)", ["anthropic"]

ASKED = [{"role": "user", "content": "Why is the sky blue?"}]
COLD = {"extra_body": {"temperature": 0}}  # the package has no parameter for it any more
GREEDY = {"model": CHAT, "messages": ASKED, "max_tokens": 8, **COLD}
TOOL = {
    "name": "get_weather",
    "description": "Weather",
    "input_schema": harness.tool()["function"]["parameters"],
}
client = anthropic.Anthropic(base_url=harness.URL, api_key="ollama", max_retries=0)


@check("messages")
def _() -> None:
    reply = client.messages.create(**GREEDY, system="You are brief.")
    assert reply.content[0].text
    assert (reply.stop_reason, reply.usage.output_tokens) == ("max_tokens", 8)


@check("streaming")
def _() -> None:
    with client.messages.stream(**GREEDY) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert text == final.content[0].text == client.messages.create(**GREEDY).content[0].text
    assert final.usage.output_tokens == 8


@check("tools")
def _() -> None:
    asked = {"model": TOOLS, "tools": [TOOL], "max_tokens": 60, **COLD}
    messages = [{"role": "user", "content": QUESTION}]
    reply = client.messages.create(messages=messages, **asked)
    (used,) = reply.content
    assert (reply.stop_reason, used.name, used.input) == (
        "tool_use",
        "get_weather",
        {"city": "Paris"},
    )
    with client.messages.stream(messages=messages, **asked) as stream:
        assert stream.get_final_message().content[0].input == used.input
    result = {"type": "tool_result", "tool_use_id": used.id, "content": "Sunny"}
    messages += [
        {"role": "assistant", "content": [used.model_dump()]},
        {"role": "user", "content": [result]},
    ]
    final = client.messages.create(messages=messages, **asked)
    assert (final.stop_reason, final.content[0].type) == ("end_turn", "text")


@check("count_tokens")
def _() -> None:
    counted = client.messages.count_tokens(model=CHAT, messages=ASKED)
    assert counted.input_tokens == client.messages.create(**GREEDY).usage.input_tokens


@check("cancel in mid-stream")
def _() -> None:
    stream = client.messages.create(
        model=ENDLESS, max_tokens=1_000_000, messages=ASKED, stream=True, timeout=60
    )
    for _ in range(5):
        next(stream)
    stream.close()
    harness.stopped()


@check("errors")
def _() -> None:
    request = {"max_tokens": 8, "messages": ASKED}
    error = fails(lambda: client.messages.create(model="nope", **request), anthropic.NotFoundError)
    assert error.body["error"]["message"] == "model 'nope' not found"
    fails(
        lambda: client.messages.create(model=CHAT, max_tokens=8, messages=[]),
        anthropic.BadRequestError,
    )
    stream = client.messages.create(model=CRASH, **request, stream=True)
    assert "SIGKILL" in str(fails(lambda: list(stream), anthropic.APIError))


@check("concurrent use")
async def _() -> None:
    async with anthropic.AsyncAnthropic(base_url=harness.URL, api_key="x") as asynchronous:
        replies = await asyncio.gather(*(asynchronous.messages.create(**GREEDY) for _ in range(8)))
    assert len({reply.content[0].text for reply in replies}) == 1
