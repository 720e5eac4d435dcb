"""A Responses request as the core's: items become turns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from lhama.daemon.errors import Malformed
from lhama.daemon.protocol import datauris, gojson, types, websearch
from lhama.daemon.protocol.annotations import OrderedMap
from lhama.daemon.protocol.openai import reading
from lhama.daemon.protocol.openai.responses.items import (
    File,
    FunctionCall,
    FunctionCallOutput,
    Image,
    InputMessage,
    Item,
    OutputText,
    Part,
    Reasoning,
    Text,
)
from lhama.daemon.protocol.openai.responses.requests import ResponsesRequest, Tool


def chat(request: ResponsesRequest) -> types.ChatRequest:
    """The core's request for ``/v1/responses``. Raises ``Malformed``."""
    options = {
        "temperature": reading.NEUTRAL if request.temperature is None else request.temperature,
        "top_p": request.top_p,
        "num_predict": request.max_output_tokens,
    }
    system = request.instructions
    form = request.text.format if request.text else None
    return types.ChatRequest(
        model=request.model,
        messages=[
            *([types.Message(role="system", content=system)] if system else []),
            *_turns(request.input),
        ],
        options={name: value for name, value in options.items() if value is not None},
        think=reading.think(request.reasoning.effort),
        tools=list(_tools(request.tools)),
        format=form.schema if form and form.type == "json_schema" else msgspec.Raw(),
        stream=bool(request.stream),
    )


def searches(tools: Sequence[Tool]) -> bool:
    """Whether the built-in web search was asked for."""
    return any(tool.type == websearch.NAME for tool in tools)


# ---------------------------------------------------------------------------------------- turns


def _turns(items: Sequence[Item]) -> list[types.Message]:
    """Reasoning joins the assistant's turn that follows it, calls the one before them."""
    turns: list[types.Message] = []
    thoughts = ""
    for at, item in enumerate(items):
        if isinstance(item, Reasoning):
            thoughts = item.encrypted_content
            continue
        if isinstance(item, FunctionCallOutput):
            content, images = _content(item.parts)
            turns.append(
                types.Message(
                    role="tool", content=content, images=images, tool_call_id=item.call_id
                )
            )
            continue
        following = items[at + 1] if at + 1 < len(items) else None
        turn = _turn(item, turns, following)
        if thoughts and turn.role == "assistant":
            turn.thinking, thoughts = thoughts, ""
    if thoughts:
        turns.append(types.Message(role="assistant", thinking=thoughts))
    return turns


def _turn(
    item: InputMessage | FunctionCall, turns: list[types.Message], following: Item | None
) -> types.Message:
    """The turn that the item is or belongs to, the last of ``turns``."""
    last = turns[-1] if turns and turns[-1].role == "assistant" else None
    if isinstance(item, FunctionCall):
        if last is None:
            last = types.Message(role="assistant")
            turns.append(last)
        last.tool_calls = [*last.tool_calls, _call(item)]
        return last
    content, images = _content(item.parts)
    if last is not None and item.role == "assistant" and _answers(following, last):
        # Between a call and its result stands a text of the same turn: the result must follow
        # the turn that called.
        last.content = "\n".join(text for text in (last.content, content) if text)
        last.images = [*last.images, *images]
        return last
    turns.append(types.Message(role=item.role, content=content, images=images))
    return turns[-1]


def _answers(item: Item | None, turn: types.Message) -> bool:
    """Whether the item is the result of one of the turn's calls."""
    return (
        isinstance(item, FunctionCallOutput)
        and bool(item.call_id)
        and any(call.id == item.call_id for call in turn.tool_calls)
    )


def _call(item: FunctionCall) -> types.ToolCall:
    try:
        arguments: Any = gojson.value(item.arguments) if item.arguments else None
    except ValueError as error:
        raise Malformed(f"failed to parse function call arguments: {error}") from None
    if arguments is not None and not isinstance(arguments, dict):
        raise Malformed(f"failed to parse function call arguments: {OrderedMap().not_object}")
    function = types.ToolCallFunction(name=item.name, arguments=arguments or {})
    return types.ToolCall(id=item.call_id, function=function)


def _content(parts: Sequence[Part]) -> tuple[str, list[bytes]]:
    """Texts joined, and images. A file is refused; an image by its id only is left out."""
    if any(isinstance(part, File) for part in parts):
        raise Malformed("file inputs are not currently supported")
    images = [part.image_url for part in parts if isinstance(part, Image) and part.image_url]
    text = "".join(part.text for part in parts if isinstance(part, Text | OutputText))
    return text, [datauris.image(url) for url in images]


# ---------------------------------------------------------------------------------------- tools


def _tools(tools: Sequence[Tool]) -> Iterator[types.Tool]:
    """The built-in search keeps its name for itself: a function of that name gives way."""
    builtin = searches(tools)
    for tool in tools:
        if tool.type == websearch.NAME:
            yield websearch.TOOL
            continue
        for function in _functions(tool):
            if not (builtin and function.function.name == websearch.NAME):
                yield function


def _functions(tool: Tool) -> Iterator[types.Tool]:
    """The tool, or a namespace's tools with its name before theirs."""
    if tool.type != "namespace":
        function = types.ToolFunction(
            name=tool.name,
            description=tool.description or "",
            parameters=_parameters(tool.parameters),
        )
        yield types.Tool(type=tool.type, function=function)
        return
    prefix = f"{tool.name}." if tool.name else ""
    for member in tool.tools:
        for inner in _functions(member):
            inner.function.name = prefix + inner.function.name.removeprefix(prefix)
            yield inner


def _parameters(schema: dict[str, Any] | None) -> types.ToolFunctionParameters:
    try:
        return gojson.bind(_sorted(schema), types.ToolFunctionParameters)
    except Malformed as error:
        raise Malformed(f"failed to unmarshal tool parameters: {error}") from None


def _sorted(value: Any) -> Any:
    """With the keys in order: Ollama reads this schema into a Go map, and templates print it."""
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value)}
    return [_sorted(item) for item in value] if isinstance(value, list) else value
