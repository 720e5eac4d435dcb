"""A Messages request as the core's: blocks become turns. Problems are ``Malformed``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from lhama.daemon.durations import quote
from lhama.daemon.errors import Malformed
from lhama.daemon.protocol import gobase64, gojson, types, websearch
from lhama.daemon.protocol.anthropic.requests import (
    ContentBlock,
    ImageSource,
    MessageParam,
    MessagesRequest,
    Tool,
)

_EFFORTS = {"low": "low", "medium": "medium", "high": "high", "xhigh": "high", "max": "max"}


def chat(request: MessagesRequest) -> types.ChatRequest:
    """The core's request for ``/v1/messages``. What is not given stays the model's own choice."""
    if request.model and request.max_tokens <= 0:
        raise Malformed("max_tokens is required and must be positive")
    core = conversation(request)
    options = {
        "num_predict": request.max_tokens,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "top_k": request.top_k,
        "stop": request.stop_sequences or None,
    }
    core.options = {name: value for name, value in options.items() if value is not None}
    core.stream = request.stream
    return core


def conversation(request: MessagesRequest) -> types.ChatRequest:
    """The part that makes the prompt: all that counting its tokens needs."""
    if not request.model:
        raise Malformed("model is required")
    if not request.messages:
        raise Malformed("messages is required")
    system = _system(request.system)
    return types.ChatRequest(
        model=request.model,
        messages=[
            *([types.Message(role="system", content=system)] if system else []),
            *(turn for message in request.messages for turn in _turns(message)),
        ],
        tools=list(_tools(request.tools)),
        think=_think(request),
    )


def searches(tools: Sequence[Tool]) -> bool:
    """Whether the built-in web search was asked for."""
    return any(tool.type.startswith(websearch.NAME) for tool in tools)


def _think(request: MessagesRequest) -> bool | str | None:
    kind = request.thinking.type if request.thinking else ""
    if kind in ("enabled", "disabled"):
        return kind == "enabled"
    effort = request.output_config.effort if request.output_config else ""
    return _EFFORTS.get(effort.strip().lower())


def _system(system: Any) -> str:
    if isinstance(system, str):
        return system
    return _text(system) if isinstance(system, list) else ""


def _text(blocks: list[Any]) -> str:
    """The texts of blocks that were not read as a struct."""
    texts = (b.get("text") for b in blocks if isinstance(b, dict) and b.get("type") == "text")
    return "".join(text for text in texts if isinstance(text, str))


# ---------------------------------------------------------------------------------------- turns


def _turns(message: MessageParam) -> list[types.Message]:
    """Results of tools are turns of their own, in front of what the user adds to them."""
    role = message.role.lower()
    turn = types.Message(role=role)
    results: list[types.Message] = []
    for block in message.content:
        match block.type:
            case "text":
                turn.content += block.text or ""
            case "thinking" if block.thinking is not None:
                turn.thinking = block.thinking
            case "image":
                turn.images = [*turn.images, _image(block.source, "invalid image source")]
            case "tool_use" | "server_tool_use":
                turn.tool_calls = [*turn.tool_calls, _call(block)]
            case "tool_result":
                results.append(_result(block))
            case "web_search_tool_result":
                results.append(_tool_turn(block, _search_result(block.content)))
    said = bool(turn.content or turn.images or turn.tool_calls or turn.thinking)
    turns = [turn] if said else []
    return [*results, *turns] if role == "user" else [*turns, *results]


def _image(source: ImageSource | None, missing: str) -> bytes:
    if source is None:
        raise Malformed(missing)
    if source.type != "base64":
        raise Malformed(
            f"invalid image source type: {source.type}. Only base64 images are supported."
        )
    try:
        return gobase64.decode(source.data)
    except ValueError as error:
        raise Malformed(f"invalid base64 image data: {error}") from None


def _call(block: ContentBlock) -> types.ToolCall:
    for member, value in (("id", block.id), ("name", block.name)):
        if not value and block.type == "tool_use":
            raise Malformed(f"tool_use block missing required '{member}' field")
    function = types.ToolCallFunction(name=block.name, arguments=block.input)
    return types.ToolCall(id=block.id, function=function)


def _result(block: ContentBlock) -> types.Message:
    if isinstance(block.content, str):
        return _tool_turn(block, block.content)
    parts = block.content if isinstance(block.content, list) else []
    turn = _tool_turn(block, _text(parts))
    images = (p.get("source") for p in parts if isinstance(p, dict) and p.get("type") == "image")
    turn.images = [_result_image(source) for source in images]
    return turn


def _result_image(source: Any) -> bytes:
    given = source if isinstance(source, dict) else None
    texts = {k: v for k, v in (given or {}).items() if isinstance(v, str)}
    read = ImageSource(type=texts.get("type", ""), data=texts.get("data", ""))
    return _image(None if given is None else read, "invalid tool_result image source")


def _tool_turn(block: ContentBlock, content: str) -> types.Message:
    return types.Message(role="tool", content=content, tool_call_id=block.tool_use_id)


def _search_result(content: Any) -> str:
    """An earlier search's result as a model reads it: titles and addresses, or what failed."""
    if isinstance(content, str):
        return content
    found = content if isinstance(content, list) else [content]
    lines = ""
    for item in found:
        match item:
            case {"type": "web_search_result"}:
                lines += f"- {item.get('title', '')}: {item.get('url', '')}\n"
            case {"type": "web_search_tool_result_error"}:
                code = item.get("error_code")
                return "web_search_tool_result_error" + (f": {code}" if code else "")
    return lines


# ---------------------------------------------------------------------------------------- tools


def _tools(tools: Sequence[Tool]) -> Iterator[types.Tool]:
    """The built-in search keeps its name for itself: a function of that name gives way."""
    builtin = searches(tools)
    for tool in tools:
        if tool.type.startswith(websearch.NAME):
            yield websearch.TOOL
        elif not (builtin and tool.name == websearch.NAME):
            function = types.ToolFunction(
                name=tool.name, description=tool.description, parameters=_parameters(tool)
            )
            yield types.Tool(type="function", function=function)


def _parameters(tool: Tool) -> types.ToolFunctionParameters:
    schema = bytes(tool.input_schema)
    if not schema:
        return types.ToolFunctionParameters()
    try:
        return gojson.read(schema, types.ToolFunctionParameters)
    except Malformed as error:
        name = quote(tool.name)
        raise Malformed(f"invalid input_schema for tool {name}: {error}") from None
