"""LangChain over Ollama's API and over OpenAI's."""

from __future__ import annotations

import asyncio

import harness
from harness import CHAT, EMBED, QUESTION, TOOLS, check, fails
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_ollama import ChatOllama, OllamaEmbeddings, OllamaLLM
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from ollama import ResponseError
from openai import NotFoundError
from pydantic import BaseModel

CLIENT, PACKAGES = "LangChain (Python)", ["langchain-ollama", "langchain-openai"]

SKY = "Why is the sky blue?"
get_weather = tool(harness.get_weather)


class Answer(BaseModel):
    color: str


def ollama(model: str = CHAT, **more: object) -> ChatOllama:
    return ChatOllama(model=model, base_url=harness.URL, temperature=0, **more)


def openai(model: str = CHAT, **more: object) -> ChatOpenAI:
    url = f"{harness.URL}/v1"
    return ChatOpenAI(model=model, base_url=url, api_key="ollama", temperature=0, **more)


@check("chat")
def _() -> None:
    reply = ollama(num_predict=8, validate_model_on_init=True).invoke(SKY)
    assert reply.usage_metadata["output_tokens"] == 8
    assert openai(max_tokens=8).invoke(SKY).content == reply.content


@check("streaming")
def _() -> None:
    for model in (ollama(num_predict=8), openai(max_tokens=8, stream_usage=True)):
        whole = None
        for chunk in model.stream(SKY):
            whole = chunk if whole is None else whole + chunk
        assert whole.content == model.invoke(SKY).content
        assert whole.usage_metadata["output_tokens"] == 8


@check("generate")
def _() -> None:
    assert OllamaLLM(model=CHAT, base_url=harness.URL, num_predict=8).invoke(SKY)


@check("tools")
def _() -> None:
    for model in (ollama(TOOLS), openai(TOOLS)):
        agent = model.bind_tools([get_weather])
        messages = [HumanMessage(QUESTION)]
        called = agent.invoke(messages)
        (call,) = called.tool_calls
        assert call["args"] == {"city": "Paris"}
        result = ToolMessage(get_weather.invoke(call["args"]), tool_call_id=call["id"])
        final = agent.invoke([*messages, called, result])
        assert final.content
        assert not final.tool_calls


@check("structured output")
def _() -> None:
    by_schema = ollama(num_predict=40).with_structured_output(Answer, method="json_schema")
    assert isinstance(by_schema.invoke(SKY), Answer)
    model = openai(max_tokens=40).with_structured_output(Answer, method="json_schema")
    assert isinstance(model.invoke(SKY), Answer)


@check("embeddings")
def _() -> None:
    native = OllamaEmbeddings(model=EMBED, base_url=harness.URL).embed_query("hello")
    other = OpenAIEmbeddings(
        model=EMBED, base_url=f"{harness.URL}/v1", api_key="x", check_embedding_ctx_length=False
    ).embed_query("hello")
    assert max(abs(a - b) for a, b in zip(native, other, strict=True)) < 1e-5


@check("errors")
def _() -> None:
    fails(lambda: ollama("nope").invoke(SKY), ResponseError)
    fails(lambda: openai("nope", max_retries=0).invoke(SKY), NotFoundError)
    fails(lambda: ollama("nope", validate_model_on_init=True), ValueError)


@check("concurrent use")
async def _() -> None:
    model = ollama(num_predict=8)
    replies = await asyncio.gather(*(model.ainvoke(SKY) for _ in range(4)))
    assert len({reply.content for reply in replies}) == 1
