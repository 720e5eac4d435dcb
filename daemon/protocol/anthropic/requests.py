"""Requests of Anthropic's Messages: the fields that Ollama reads of them."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from lhama.daemon.protocol.annotations import OrderedMap, OrText


class ImageSource(msgspec.Struct):
    go_package = "anthropic"

    type: str = ""
    media_type: str = ""
    data: str = ""


class ContentBlock(msgspec.Struct, omit_defaults=True):
    """One block of a message; ``type`` says which of the fields mean something."""

    go_package = "anthropic"

    type: str = ""
    text: str | None = None
    source: ImageSource | None = None
    id: str = ""
    name: str = ""
    input: Annotated[dict[str, Any] | None, OrderedMap()] = None
    tool_use_id: str = ""
    content: Any = None
    thinking: str | None = None


def _text_block(text: str) -> list[ContentBlock]:
    return [ContentBlock(type="text", text=text)]


class MessageParam(msgspec.Struct):
    go_package = "anthropic"
    go_alias = "MessageParam"

    role: str = ""
    content: Annotated[list[ContentBlock], OrText(_text_block)] = []


class Tool(msgspec.Struct):
    """A function, or by its ``type`` a tool that Anthropic's servers run."""

    go_package = "anthropic"

    type: str = ""
    name: str = ""
    description: str = ""
    input_schema: msgspec.Raw = msgspec.Raw()


class ThinkingConfig(msgspec.Struct):
    go_package = "anthropic"

    type: str = ""


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
    thinking: ThinkingConfig | None = None
    output_config: OutputConfig | None = None
