"""LlamaIndex with Ollama's models and embeddings."""

from __future__ import annotations

import harness
from harness import CHAT, EMBED, QUESTION, TOOLS, check, fails
from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.embeddings.ollama import OllamaEmbedding
from llama_index.llms.ollama import Ollama
from ollama import ResponseError
from pydantic import BaseModel

CLIENT = "LlamaIndex"
PACKAGES = ["llama-index-llms-ollama", "llama-index-embeddings-ollama"]

SKY = [ChatMessage(role="user", content="Why is the sky blue?")]


class Answer(BaseModel):
    color: str


def model(name: str = CHAT, **more: object) -> Ollama:
    options = {"num_predict": 40}
    return Ollama(
        model=name, base_url=harness.URL, temperature=0, additional_kwargs=options, **more
    )


@check("chat")
def _() -> None:
    reply = model(context_window=512).chat(SKY)
    assert reply.message.content
    assert reply.raw["eval_count"]


@check("context window from show")
def _() -> None:
    shown = harness.call("/api/show", {"model": CHAT})["model_info"]
    window = model(context_window=-1).get_context_window()
    assert window == shown["llama.context_length"]


@check("streaming")
def _() -> None:
    parts = list(model(context_window=512).stream_chat(SKY))
    assert parts[-1].message.content == model(context_window=512).chat(SKY).message.content


@check("tools")
def _() -> None:
    tools = [FunctionTool.from_defaults(harness.get_weather)]
    llm = model(TOOLS, context_window=512)
    reply = llm.chat_with_tools(tools, user_msg=QUESTION)
    (call,) = llm.get_tool_calls_from_response(reply)
    assert (call.tool_name, call.tool_kwargs) == ("get_weather", {"city": "Paris"})


@check("structured output")
def _() -> None:
    structured = model(context_window=512).as_structured_llm(Answer)
    assert isinstance(structured.chat(SKY).raw, Answer)


@check("embeddings")
def _() -> None:
    embedder = OllamaEmbedding(model_name=EMBED, base_url=harness.URL)
    vectors = embedder.get_text_embedding_batch(["hello", "bye"])
    assert [len(vector) for vector in vectors] == [384, 384]


@check("errors")
def _() -> None:
    fails(lambda: model("nope", context_window=512).chat(SKY), ResponseError)
