"""Agents of Pydantic AI: tools are called, and an answer is checked against a type."""

from __future__ import annotations

import harness
from harness import CHAT, QUESTION, TOOLS, check, fails
from pydantic import BaseModel
from pydantic_ai import Agent, NativeOutput
from pydantic_ai.exceptions import ModelHTTPError
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.ollama import OllamaProvider

CLIENT, PACKAGES = "Pydantic AI", ["pydantic-ai-slim"]

SETTINGS = {"temperature": 0.0, "max_tokens": 60}


class Answer(BaseModel):
    color: str


def agent(model: str = CHAT, **more: object) -> Agent:
    provider = OllamaProvider(base_url=f"{harness.URL}/v1")
    chat = OpenAIChatModel(model, provider=provider)
    return Agent(chat, model_settings=SETTINGS, **more)


@check("chat")
def _() -> None:
    result = agent().run_sync("Why is the sky blue?")
    assert result.output
    assert result.usage.output_tokens


@check("streaming")
async def _() -> None:
    async with agent().run_stream("Why is the sky blue?") as result:
        parts = [part async for part in result.stream_text(delta=True)]
    assert len(parts) > 4


@check("tools")
def _() -> None:
    called: list[str] = []

    def get_weather(city: str) -> str:
        """The weather in a city."""
        called.append(city)
        return harness.get_weather(city)

    result = agent(TOOLS, tools=[get_weather]).run_sync(QUESTION)
    assert called == ["Paris"]
    assert result.output


@check("structured output")
def _() -> None:
    typed = agent(output_type=NativeOutput(Answer))
    assert isinstance(typed.run_sync("Why is the sky blue?").output, Answer)


@check("errors")
def _() -> None:
    error = fails(lambda: agent("nope").run_sync("x"), ModelHTTPError)
    assert error.status_code == 404
