"""OpenAI's Python package on /v1."""

from __future__ import annotations

import asyncio
import json

import harness
import openai
from harness import CHAT, CRASH, EMBED, ENDLESS, QUESTION, SCHEMA, TOOLS, check, fails
from pydantic import BaseModel

CLIENT, PACKAGES = "openai (Python)", ["openai"]

ASKED = [{"role": "user", "content": "Why is the sky blue?"}]
GREEDY = {"model": CHAT, "messages": ASKED, "temperature": 0, "max_tokens": 8}
client = openai.OpenAI(base_url=f"{harness.URL}/v1", api_key="ollama", max_retries=0)


class Answer(BaseModel):
    color: str


@check("models")
def _() -> None:
    assert CHAT in {model.id for model in client.models.list()}
    assert client.models.retrieve(CHAT).owned_by == "library"


@check("chat")
def _() -> None:
    reply = client.chat.completions.create(**GREEDY)
    assert reply.choices[0].finish_reason == "length"
    assert reply.usage.completion_tokens == 8


@check("streaming")
def _() -> None:
    whole = client.chat.completions.create(**GREEDY).choices[0].message.content
    usage = {"stream": True, "stream_options": {"include_usage": True}}
    *parts, last = client.chat.completions.create(**GREEDY, **usage)
    assert "".join(part.choices[0].delta.content or "" for part in parts) == whole
    assert parts[-1].choices[0].finish_reason == "length"
    assert last.usage.completion_tokens == 8


@check("tools")
def _() -> None:
    asked = {"model": TOOLS, "tools": [harness.tool()], "temperature": 0}
    messages = [{"role": "user", "content": QUESTION}]
    reply = client.chat.completions.create(messages=messages, **asked).choices[0]
    assert reply.finish_reason == "tool_calls"
    (call,) = reply.message.tool_calls
    assert json.loads(call.function.arguments) == {"city": "Paris"}
    with client.chat.completions.stream(messages=messages, **asked) as stream:
        streamed = stream.get_final_completion().choices[0]
    assert streamed.finish_reason == "tool_calls"
    assert streamed.message.tool_calls[0].function.arguments == call.function.arguments
    result = {"role": "tool", "tool_call_id": call.id, "content": "Sunny"}
    messages += [reply.message.model_dump(exclude_none=True), result]
    final = client.chat.completions.create(messages=messages, **asked).choices[0]
    assert (final.finish_reason, bool(final.message.content)) == ("stop", True)


@check("structured output")
def _() -> None:
    form = {"type": "json_schema", "json_schema": {"name": "c", "schema": SCHEMA}}
    request = {"model": CHAT, "messages": ASKED, "temperature": 0}
    reply = client.chat.completions.create(**request, response_format=form)
    assert json.loads(reply.choices[0].message.content)["color"] in ("blue", "red")
    parsed = client.chat.completions.parse(**request, response_format=Answer, max_tokens=40)
    assert isinstance(parsed.choices[0].message.parsed, Answer)


@check("logprobs")
def _() -> None:
    reply = client.chat.completions.create(**GREEDY, logprobs=True, top_logprobs=2)
    tokens = reply.choices[0].logprobs.content
    assert len(tokens) == 8
    assert all(len(token.top_logprobs) == 2 for token in tokens)


@check("completions")
def _() -> None:
    request = {"model": CHAT, "prompt": "The capital of France is", "max_tokens": 4}
    stream = client.completions.create(**request, temperature=0, stream=True)
    streamed = "".join(chunk.choices[0].text for chunk in stream)
    assert client.completions.create(**request, temperature=0).choices[0].text == streamed


@check("responses")
def _() -> None:
    request = {"model": CHAT, "input": "Why is the sky blue?", "max_output_tokens": 8}
    whole = client.responses.create(**request, temperature=0)
    with client.responses.stream(**request, temperature=0) as stream:
        for _event in stream:
            pass
        final = stream.get_final_response()
    assert final.output_text == whole.output_text != ""
    function = {"type": "function", **harness.tool()["function"]}
    called = client.responses.create(model=TOOLS, input=QUESTION, tools=[function], temperature=0)
    (item,) = called.output
    assert (item.type, json.loads(item.arguments)) == ("function_call", {"city": "Paris"})


@check("embeddings")
def _() -> None:
    packed = client.embeddings.create(model=EMBED, input=["hello", "bye"])
    plain = client.embeddings.create(model=EMBED, input=["hello", "bye"], encoding_format="float")
    for one, other in zip(packed.data, plain.data, strict=True):
        assert max(abs(a - b) for a, b in zip(one.embedding, other.embedding, strict=True)) < 1e-6
    short = client.embeddings.create(model=EMBED, input="hello", dimensions=16)
    assert len(short.data[0].embedding) == 16


@check("cancel in mid-stream")
def _() -> None:
    messages = [{"role": "user", "content": "x"}]
    stream = client.chat.completions.create(model=ENDLESS, messages=messages, stream=True)
    for _ in range(3):
        next(stream)
    stream.close()
    harness.stopped()


@check("errors")
def _() -> None:
    error = fails(
        lambda: client.chat.completions.create(model="nope", messages=ASKED), openai.NotFoundError
    )
    assert error.body["message"] == "model 'nope' not found"
    fails(lambda: client.chat.completions.create(model=CHAT, messages=[]), openai.BadRequestError)
    stream = client.chat.completions.create(model=CRASH, messages=ASKED, stream=True)
    assert "SIGKILL" in str(fails(lambda: list(stream), openai.APIError))


@check("concurrent use")
async def _() -> None:
    url = f"{harness.URL}/v1"
    async with openai.AsyncOpenAI(base_url=url, api_key="ollama") as asynchronous:
        replies = await asyncio.gather(
            *(asynchronous.chat.completions.create(**GREEDY) for _ in range(8))
        )
    assert len({reply.choices[0].message.content for reply in replies}) == 1
