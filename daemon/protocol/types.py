"""Requests of the native API: Go's structs, field for field, as ``gojson`` reads them.

Defaults are Go's zero values; a field that may be ``None`` is a pointer there. Class and field
names are part of error texts.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from lhama.daemon import durations
from lhama.daemon.durations import Duration, quote
from lhama.daemon.protocol.annotations import Custom, GoName, OrderedMap
from lhama.daemon.protocol.govalue import Mismatch, Number, kind, type_name

THINK_LEVELS = ("high", "medium", "low", "max")


def _read_keep_alive(value: Any) -> Duration:
    """A number of seconds or a Go duration; a negative one is for ever."""
    if isinstance(value, str):
        parsed = durations.parse(value)
        return durations.FOREVER if parsed < 0 else parsed
    if isinstance(value, int | float) and not isinstance(value, bool):
        return durations.seconds(value)
    if isinstance(value, Number):
        raise Mismatch(f"number {value.text}", "float64")
    raise ValueError(f"Unsupported type: '{type_name(value)}'")


def _read_think(value: Any) -> bool | str:
    expected = '"high", "medium", "low", "max", true, or false'
    if isinstance(value, bool):
        return value
    if not isinstance(value, str):
        raise ValueError(f"think must be a boolean or string ({expected})")
    if value not in THINK_LEVELS:
        raise ValueError(f"invalid think value: {quote(value)} (must be {expected})")
    return value


def _read_property_type(value: Any) -> list[str]:
    """A JSON Schema ``type``: one name or several."""
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list):
        raise Mismatch(kind(value), "[]string")
    for item in value:
        if item is not None and not isinstance(item, str):
            raise Mismatch(kind(item), "string")
    return [item or "" for item in value]


KeepAlive = Annotated[Duration | None, Custom("api.Duration", _read_keep_alive)]
Think = Annotated[bool | str | None, Custom("api.ThinkValue", _read_think)]
Image = Annotated[bytes, GoName("api.ImageData")]
Options = dict[str, Any]
Properties = Annotated["dict[str, ToolProperty] | None", OrderedMap()]

# ------------------------------------------------------------------------------ chat's content


class ToolCallFunction(msgspec.Struct):
    index: int = 0
    name: str = ""
    arguments: Annotated[dict[str, Any] | None, OrderedMap()] = None


class ToolCall(msgspec.Struct):
    id: str = ""
    function: ToolCallFunction = msgspec.field(default_factory=ToolCallFunction)


class Message(msgspec.Struct):
    go_alias = "Alias"

    role: str = ""
    content: str = ""
    thinking: str = ""
    images: list[Image] = []
    tool_calls: list[ToolCall] = []
    tool_name: str = ""
    tool_call_id: str = ""


class ToolProperty(msgspec.Struct):
    any_of: list[ToolProperty] = msgspec.field(default_factory=list, name="anyOf")
    type: Annotated[list[str], Custom("api.PropertyType", _read_property_type)] = []
    items: Any = None
    description: str = ""
    enum: list[Any] = []
    properties: Properties = None
    required: list[str] = []


class ToolFunctionParameters(msgspec.Struct):
    type: str = ""
    defs: Any = msgspec.field(default=None, name="$defs")
    items: Any = None
    required: list[str] = []
    properties: Properties = None


class ToolFunction(msgspec.Struct):
    name: str = ""
    description: str = ""
    parameters: ToolFunctionParameters = msgspec.field(default_factory=ToolFunctionParameters)


class Tool(msgspec.Struct):
    type: str = ""
    items: Any = None
    function: ToolFunction = msgspec.field(default_factory=ToolFunction)


Tools = Annotated[list[Tool], GoName("api.Tools")]

# --------------------------------------------------------------------------------- inference


class GenerateRequest(msgspec.Struct, kw_only=True):
    model: str = ""
    prompt: str = ""
    suffix: str = ""
    system: str = ""
    template: str = ""
    context: list[int] | None = None
    stream: bool | None = None
    raw: bool = False
    format: msgspec.Raw = msgspec.Raw()
    keep_alive: KeepAlive = None
    images: list[Image] = []
    options: Options = {}
    think: Think = None
    truncate: bool | None = None
    shift: bool | None = None
    debug_render_only: bool = msgspec.field(default=False, name="_debug_render_only")
    logprobs: bool = False
    top_logprobs: int = 0


class ChatRequest(msgspec.Struct, kw_only=True):
    model: str = ""
    messages: list[Message] = []
    stream: bool | None = None
    format: msgspec.Raw = msgspec.Raw()
    keep_alive: KeepAlive = None
    tools: Tools = []
    options: Options = {}
    think: Think = None
    truncate: bool | None = None
    shift: bool | None = None
    debug_render_only: bool = msgspec.field(default=False, name="_debug_render_only")
    logprobs: bool = False
    top_logprobs: int = 0


class EmbedRequest(msgspec.Struct, kw_only=True):
    model: str = ""
    input: Any = None
    keep_alive: KeepAlive = None
    truncate: bool | None = None
    dimensions: int = 0
    options: Options = {}


class EmbeddingRequest(msgspec.Struct, kw_only=True):
    model: str = ""
    prompt: str = ""
    keep_alive: KeepAlive = None
    options: Options = {}


class RerankRequest(msgspec.Struct, kw_only=True):
    """Not Ollama's: see ``protocol.rerank``."""

    model: str = ""
    query: str = ""
    documents: Any = None
    top_n: int | None = None
    return_documents: bool = False
    raw_scores: bool = False
    truncate: bool | None = None
    keep_alive: KeepAlive = None
    options: Options = {}


# ------------------------------------------------------------------------------------- models


class ShowRequest(msgspec.Struct, kw_only=True):
    model: str = ""
    system: str = ""
    template: str = ""
    verbose: bool = False
    options: Options = {}
    name: str = ""


class CreateRequest(msgspec.Struct, kw_only=True):
    model: str = ""
    stream: bool | None = None
    quantize: str = ""
    draft_quantize: str = ""
    from_: str = msgspec.field(default="", name="from")
    remote_host: str = ""
    files: dict[str, str] | None = None
    draft_files: dict[str, str] | None = None
    adapters: dict[str, str] | None = None
    template: str = ""
    license: Any = None
    system: str = ""
    parameters: dict[str, Any] | None = None
    messages: list[Message] | None = None
    renderer: str = ""
    parser: str = ""
    requires: str = ""
    info: dict[str, Any] | None = None
    name: str = ""
    quantization: str = ""


class CopyRequest(msgspec.Struct, kw_only=True):
    source: str = ""
    destination: str = ""


class DeleteRequest(msgspec.Struct, kw_only=True):
    model: str = ""
    name: str = ""


class PullRequest(msgspec.Struct, kw_only=True):
    model: str = ""
    insecure: bool = False
    username: str = ""
    password: str = ""
    stream: bool | None = None
    name: str = ""


class PushRequest(msgspec.Struct, kw_only=True):
    model: str = ""
    insecure: bool = False
    username: str = ""
    password: str = ""
    stream: bool | None = None
    name: str = ""
