"""The llm tool with its Ollama plugin."""

from __future__ import annotations

import os
import tempfile

import harness

os.environ["OLLAMA_HOST"] = harness.URL
os.environ["LLM_USER_PATH"] = tempfile.mkdtemp(prefix="llm-")

import llm
from harness import QUESTION, SCHEMA, check, fails

CLIENT, PACKAGES = "llm", ["llm", "llm-ollama"]

CHAT, TOOLS, EMBED = (f"ollama/{name}" for name in (harness.CHAT, harness.TOOLS, harness.EMBED))


@check("list")
def _() -> None:
    assert CHAT in {model.model_id for model in llm.get_models()}
    assert any(model.model_id.startswith(EMBED) for model in llm.get_embedding_models())


@check("chat")
def _() -> None:
    reply = llm.get_model(CHAT).prompt("Why is the sky blue?", stream=False, num_predict=8)
    assert reply.text()
    assert reply.usage().output == 8


@check("streaming")
def _() -> None:
    assert len(list(llm.get_model(CHAT).prompt("Why is the sky blue?", num_predict=8))) > 4


@check("tools")
def _() -> None:
    chain = llm.get_model(TOOLS).chain(
        QUESTION, tools=[harness.get_weather], options={"temperature": 0}, stream=False
    )
    first, last = list(chain.responses())
    (call,) = first.tool_calls()
    assert call.arguments == {"city": "Paris"}
    assert last.text()


@check("structured output")
def _() -> None:
    reply = llm.get_model(CHAT).prompt("Why is the sky blue?", schema=SCHEMA, temperature=0)
    assert '"color"' in reply.text()


@check("embeddings")
def _() -> None:
    assert len(llm.get_embedding_model(EMBED).embed("hello")) == 384


@check("errors")
def _() -> None:
    fails(lambda: llm.get_model("nope"), llm.UnknownModelError)
