"""The request of ``/v1/responses``: the fields that Ollama reads of it."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from lhama.daemon.protocol.annotations import Custom
from lhama.daemon.protocol.openai.responses.items import Item, read_input

Input = Annotated[list[Item], Custom("openai.ResponsesInput", read_input)]


class Reasoning(msgspec.Struct):
    go_package = "openai"
    go_name = "ResponsesReasoning"

    effort: str = ""
    generate_summary: str = ""
    summary: str = ""


class TextFormat(msgspec.Struct):
    go_package = "openai"
    go_name = "ResponsesTextFormat"

    type: str = ""
    name: str = ""
    schema: msgspec.Raw = msgspec.Raw()
    strict: bool | None = None


class Text(msgspec.Struct):
    go_package = "openai"
    go_name = "ResponsesText"

    format: TextFormat | None = None


class Tool(msgspec.Struct):
    """A function; or a ``namespace`` of ``tools``; or ``web_search``, which the server runs."""

    go_package = "openai"
    go_name = "ResponsesTool"

    type: str = ""
    name: str = ""
    description: str | None = None
    strict: bool | None = None
    parameters: dict[str, Any] | None = None
    tools: list[Tool] = []


class ResponsesRequest(msgspec.Struct, kw_only=True):
    go_package = "openai"

    model: str = ""
    background: bool = False
    include: list[str] = []
    input: Input = []
    instructions: str = ""
    max_output_tokens: int | None = None
    reasoning: Reasoning = msgspec.field(default_factory=Reasoning)
    temperature: float | None = None
    text: Text | None = None
    top_p: float | None = None
    truncation: str | None = None
    tools: list[Tool] = []
    stream: bool | None = None
