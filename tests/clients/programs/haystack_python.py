"""Haystack with its Ollama components."""

from __future__ import annotations

import harness
from harness import CHAT, EMBED, QUESTION, SCHEMA, TOOLS, check, fails
from haystack.dataclasses import ChatMessage
from haystack.tools import create_tool_from_function
from haystack_integrations.components.embedders.ollama import OllamaTextEmbedder
from haystack_integrations.components.generators.ollama import OllamaChatGenerator
from ollama import ResponseError

CLIENT, PACKAGES = "Haystack", ["ollama-haystack"]

SKY = [ChatMessage.from_user("Why is the sky blue?")]
GREEDY = {"temperature": 0, "num_predict": 40}


def generator(model: str = CHAT, **more: object) -> OllamaChatGenerator:
    return OllamaChatGenerator(model=model, url=harness.URL, generation_kwargs=GREEDY, **more)


@check("chat")
def _() -> None:
    (reply,) = generator().run(SKY)["replies"]
    assert reply.text
    assert reply.meta["usage"]["completion_tokens"] == 40


@check("streaming")
def _() -> None:
    parts: list[str] = []
    streaming = generator(streaming_callback=lambda chunk: parts.append(chunk.content))
    (reply,) = streaming.run(SKY)["replies"]
    assert "".join(parts) == reply.text == generator().run(SKY)["replies"][0].text


@check("tools")
def _() -> None:
    weather = create_tool_from_function(harness.get_weather)
    asked = [ChatMessage.from_user(QUESTION)]
    (reply,) = generator(TOOLS, tools=[weather]).run(asked)["replies"]
    (call,) = reply.tool_calls
    assert call.arguments == {"city": "Paris"}
    result = ChatMessage.from_tool(weather.invoke(**call.arguments), origin=call)
    (final,) = generator(TOOLS, tools=[weather]).run([*asked, reply, result])["replies"]
    assert final.text


@check("structured output")
def _() -> None:
    (reply,) = generator(response_format=SCHEMA).run(SKY)["replies"]
    assert '"color"' in reply.text


@check("embeddings")
def _() -> None:
    embedder = OllamaTextEmbedder(model=EMBED, url=harness.URL)
    assert len(embedder.run("hello")["embedding"]) == 384


@check("errors")
def _() -> None:
    fails(lambda: generator("nope").run(SKY), ResponseError)
