"""Requests of OpenAI's chat, completions and embeddings, and of reranking beside them: the fields that Ollama reads of them.

Go's structs, as ``gojson`` reads them; what is not here is ignored. Class and field names are part
of error texts.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from lhama.daemon.protocol.annotations import GoName
from lhama.daemon.protocol.types import Tool

Float32 = Annotated[float, GoName("float32")]


class StreamOptions(msgspec.Struct):
    go_package = "openai"

    include_usage: bool = False


class ToolCallFunction(msgspec.Struct):
    go_name = ""
    go_struct = 'struct { Name string "json:\\"name\\""; Arguments string "json:\\"arguments\\"" }'

    name: str = ""
    arguments: str = ""


class ToolCall(msgspec.Struct):
    go_package = "openai"

    id: str = ""
    index: int = 0
    type: str = ""
    function: ToolCallFunction = msgspec.field(default_factory=ToolCallFunction)


class Message(msgspec.Struct):
    go_package = "openai"

    role: str = ""
    content: Any = None
    reasoning: str = ""
    tool_calls: list[ToolCall] | None = None
    name: str = ""
    tool_call_id: str = ""


class JsonSchema(msgspec.Struct):
    go_package = "openai"

    schema: msgspec.Raw = msgspec.Raw()


class ResponseFormat(msgspec.Struct):
    go_package = "openai"

    type: str = ""
    json_schema: JsonSchema | None = None


class Reasoning(msgspec.Struct):
    go_package = "openai"

    effort: str = ""


class ChatCompletionRequest(msgspec.Struct, kw_only=True):
    go_package = "openai"

    model: str = ""
    messages: list[Message] = []
    stream: bool = False
    stream_options: StreamOptions | None = None
    max_tokens: int | None = None
    max_completion_tokens: Any = None
    """OpenAI's newer name of ``max_tokens``. Ollama ignores it, so only what is a number counts."""
    seed: int | None = None
    stop: Any = None
    temperature: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    top_p: float | None = None
    response_format: ResponseFormat | None = None
    tools: list[Tool] = []
    reasoning: Reasoning | None = None
    reasoning_effort: str | None = None
    logprobs: bool | None = None
    top_logprobs: int = 0
    debug_render_only: bool = msgspec.field(default=False, name="_debug_render_only")


class CompletionRequest(msgspec.Struct, kw_only=True):
    go_package = "openai"

    model: str = ""
    prompt: str = ""
    frequency_penalty: Float32 = 0.0
    max_tokens: int | None = None
    presence_penalty: Float32 = 0.0
    seed: int | None = None
    stop: Any = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    temperature: Float32 | None = None
    top_p: Float32 = 0.0
    suffix: str = ""
    logprobs: int | None = None
    debug_render_only: bool = msgspec.field(default=False, name="_debug_render_only")


class EmbedRequest(msgspec.Struct, kw_only=True):
    go_package = "openai"

    input: Any = None
    model: str = ""
    dimensions: int = 0
    encoding_format: str = ""


class RerankRequest(msgspec.Struct, kw_only=True):
    go_package = "openai"

    model: str = ""
    query: str = ""
    documents: Any = None
    top_n: int | None = None
    return_documents: bool | None = None
    raw_scores: bool = False
