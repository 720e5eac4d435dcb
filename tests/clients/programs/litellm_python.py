"""LiteLLM over Ollama's chat and generate, and over OpenAI's API."""

from __future__ import annotations

import harness
import litellm
from harness import CHAT, EMBED, QUESTION, SCHEMA, TOOLS, check, fails

CLIENT, PACKAGES = "LiteLLM", ["litellm"]

litellm.suppress_debug_info = True
SKY = [{"role": "user", "content": "Why is the sky blue?"}]
NATIVE = {"api_base": harness.URL, "temperature": 0}
OPENAI = {"api_base": f"{harness.URL}/v1", "api_key": "ollama", "temperature": 0}


@check("chat")
def _() -> None:
    for model in (f"ollama_chat/{CHAT}", f"ollama/{CHAT}"):
        reply = litellm.completion(model, SKY, max_tokens=8, **NATIVE)
        assert reply.choices[0].message.content
        assert reply.usage.completion_tokens == 8
    assert litellm.completion(f"openai/{CHAT}", SKY, max_tokens=8, **OPENAI).choices[0].message


@check("streaming")
def _() -> None:
    for model, where in ((f"ollama_chat/{CHAT}", NATIVE), (f"openai/{CHAT}", OPENAI)):
        stream = litellm.completion(model, SKY, max_tokens=8, stream=True, **where)
        text = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
        whole = litellm.completion(model, SKY, max_tokens=8, **where)
        assert text == whole.choices[0].message.content


@check("tools")
def _() -> None:
    asked = [{"role": "user", "content": QUESTION}]
    reply = litellm.completion(f"openai/{TOOLS}", asked, tools=[harness.tool()], **OPENAI)
    (call,) = reply.choices[0].message.tool_calls
    assert call.function.arguments == '{"city":"Paris"}'


@check("structured output")
def _() -> None:
    form = {"type": "json_schema", "json_schema": {"name": "c", "schema": SCHEMA}}
    reply = litellm.completion(f"ollama_chat/{CHAT}", SKY, response_format=form, **NATIVE)
    assert '"color"' in reply.choices[0].message.content


@check("embeddings")
def _() -> None:
    reply = litellm.embedding(f"ollama/{EMBED}", ["hello", "bye"], api_base=harness.URL)
    assert [len(entry["embedding"]) for entry in reply.data] == [384, 384]


@check("errors")
def _() -> None:
    fails(
        lambda: litellm.completion("openai/nope", SKY, max_retries=0, **OPENAI),
        litellm.NotFoundError,
    )
    fails(lambda: litellm.completion("ollama_chat/nope", SKY, **NATIVE), litellm.NotFoundError)
