"""Requests of Anthropic's Messages: the fields that Ollama has, if only to refuse a wrong type."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from lhama.daemon.protocol.annotations import OrderedMap, OrText


class ImageSource(msgspec.Struct):
    go_package = "anthropic"

    type: str = ""
    media_type: str = ""
    data: str = ""
    url: str = ""


class Citation(msgspec.Struct):
    go_package = "anthropic"

    type: str = ""
    url: str = ""
    title: str = ""
    encrypted_index: str = ""
    cited_text: str = ""


class ContentBlock(msgspec.Struct, omit_defaults=True):
    """One block of a message; ``type`` says which of the fields mean something."""

    go_package = "anthropic"

    type: str = ""
    text: str | None = None
    citations: list[Citation] = []
    source: ImageSource | None = None
    id: str = ""
    name: str = ""
    input: Annotated[dict[str, Any] | None, OrderedMap()] = None
    tool_use_id: str = ""
    content: Any = None
    is_error: bool = False
    thinking: str | None = None
    signature: str = ""


def _text_block(text: str) -> list[ContentBlock]:
    return [ContentBlock(type="text", text=text)]


class MessageParam(msgspec.Struct):
    go_package = "anthropic"
    go_struct = (
        'struct { Role string "json:\\"role\\""; Content json.RawMessage "json:\\"content\\"" }'
    )

    role: str = ""
    content: Annotated[list[ContentBlock], OrText(_text_block)] = []


class Tool(msgspec.Struct):
    """A function, or by its ``type`` a tool that Anthropic's servers run."""

    go_package = "anthropic"

    type: str = ""
    name: str = ""
    description: str = ""
    input_schema: msgspec.Raw = msgspec.Raw()
    max_uses: int = 0


class ToolChoice(msgspec.Struct):
    go_package = "anthropic"

    type: str = ""
    name: str = ""
    disable_parallel_tool_use: bool = False


class ThinkingConfig(msgspec.Struct):
    go_package = "anthropic"

    type: str = ""
    budget_tokens: int = 0


class Metadata(msgspec.Struct):
    go_package = "anthropic"

    user_id: str = ""


class OutputConfig(msgspec.Struct):
    go_package = "anthropic"

    effort: str = ""


class MessagesRequest(msgspec.Struct, kw_only=True):
    go_package = "anthropic"

    model: str = ""
    max_tokens: int = 0
    messages: list[MessageParam] = []
    system: Any = None
    stream: bool = False
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    stop_sequences: list[str] = []
    tools: list[Tool] = []
    tool_choice: ToolChoice | None = None
    thinking: ThinkingConfig | None = None
    metadata: Metadata | None = None
    output_config: OutputConfig | None = None
