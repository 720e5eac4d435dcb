"""OpenAI's requests as the core's: the mapping is Ollama's, field by field.

Every problem is ``Malformed``, worded as Ollama words it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from lhama.daemon.durations import quote
from lhama.daemon.errors import BadRequest, Malformed
from lhama.daemon.protocol import datauris, gobase64, gojson, govalue
from lhama.daemon.protocol.openai.requests import (
    ChatCompletionRequest,
    CompletionRequest,
    EmbedRequest,
    Message,
    RerankRequest,
    ResponseFormat,
    ToolCall,
)
from lhama.daemon.protocol.rerank import Ranking
from lhama.daemon.protocol.types import ChatRequest, GenerateRequest
from lhama.daemon.protocol.types import Message as CoreMessage
from lhama.daemon.protocol.types import ToolCall as CoreToolCall
from lhama.daemon.protocol.types import ToolCallFunction as CoreFunction

NEUTRAL = 1.0
"""Temperature and top_p where none is given, whatever the model's parameters say."""

_EFFORTS = {"minimal": "low", "xhigh": "max", "ultra": "max"} | {
    effort: effort for effort in ("low", "medium", "high", "max")
}


def chat(request: ChatCompletionRequest) -> ChatRequest:
    """The core's request for ``/v1/chat/completions``."""
    if not request.messages:
        raise Malformed("[] is too short - 'messages'")
    limit = request.max_tokens
    if limit is None and type(request.max_completion_tokens) is int:
        limit = request.max_completion_tokens
    options = {
        "stop": _stops(request.stop),
        "num_predict": limit,
        "temperature": NEUTRAL if request.temperature is None else request.temperature,
        "seed": request.seed,
        "frequency_penalty": request.frequency_penalty,
        "presence_penalty": request.presence_penalty,
        "top_p": NEUTRAL if request.top_p is None else request.top_p,
    }
    effort = request.reasoning.effort if request.reasoning else request.reasoning_effort or ""
    return ChatRequest(
        model=request.model,
        messages=[core for one in request.messages for core in _messages(one, request.messages)],
        format=_format(request.response_format),
        options={name: value for name, value in options.items() if value is not None},
        stream=request.stream,
        tools=request.tools,
        think=think(effort),
        logprobs=bool(request.logprobs),
        top_logprobs=request.top_logprobs,
        debug_render_only=request.debug_render_only,
    )


def completion(request: CompletionRequest) -> GenerateRequest:
    """The core's request for ``/v1/completions``."""
    if isinstance(request.stop, list):
        for item in request.stop:
            if not isinstance(item, str):
                raise Malformed(f"invalid type for 'stop' field: {govalue.type_name(item)}")
    options = {
        "stop": _stops(request.stop),
        "num_predict": request.max_tokens,
        "temperature": NEUTRAL if request.temperature is None else request.temperature,
        "seed": request.seed,
        "frequency_penalty": request.frequency_penalty,
        "presence_penalty": request.presence_penalty,
        "top_p": request.top_p or NEUTRAL,
    }
    logprobs = max(request.logprobs or 0, 0)
    return GenerateRequest(
        model=request.model,
        prompt=request.prompt,
        suffix=request.suffix,
        options={name: value for name, value in options.items() if value is not None},
        stream=request.stream,
        logprobs=logprobs > 0,
        top_logprobs=logprobs,
        debug_render_only=request.debug_render_only,
    )


def inputs(request: EmbedRequest) -> Any:
    """What ``/v1/embeddings`` shall embed, for the core's own check of its type."""
    form = request.encoding_format
    if form.lower() not in ("", "float", "base64"):
        raise Malformed(
            f"Invalid value for 'encoding_format' = {form}. Supported values: ['float', 'base64']."
        )
    if request.input is None or request.input == []:
        raise Malformed("invalid input")
    return [""] if request.input == "" else request.input


def ranking(request: RerankRequest) -> Ranking:
    """What ``/v1/rerank`` shall rank."""
    if not request.documents:
        raise Malformed("documents must be a list of at least one string")
    try:
        return Ranking.read(
            request.query,
            request.documents,
            request.top_n,
            request.return_documents,
            request.raw_scores,
        )
    except BadRequest as error:
        raise Malformed(error.message) from None


def think(effort: str) -> bool | str | None:
    """An effort as the core's ``think``; the scale is longer than Ollama's, so its ends fold."""
    if effort in ("", "none"):
        return None if not effort else False
    if effort not in _EFFORTS:
        raise Malformed(
            f'invalid reasoning value: {quote(effort)} (must be "minimal", "low", "medium", '
            '"high", "xhigh", "ultra", "max", or "none")'
        )
    return _EFFORTS[effort]


def _stops(stop: Any) -> list[str] | None:
    """A list without a text in it counts as not given: the model's own stay."""
    if isinstance(stop, str):
        return [stop]
    return [s for s in stop if isinstance(s, str)] or None if isinstance(stop, list) else None


def _format(form: ResponseFormat | None) -> msgspec.Raw:
    kind = form.type.strip().lower() if form else ""
    if kind == "json_object":
        return msgspec.Raw(b'"json"')
    if form and kind == "json_schema" and form.json_schema:
        return form.json_schema.schema
    return msgspec.Raw()


# ------------------------------------------------------------------------------------- messages


def _messages(message: Message, conversation: Sequence[Message]) -> list[CoreMessage]:
    """One message as the core's: a content of parts becomes a message for each part."""
    content = message.content
    calls = [_call(call) for call in message.tool_calls or ()]
    if isinstance(content, list):
        parts = [_part(message.role, part) for part in content]
        if parts and calls:
            last = parts[-1]
            last.tool_calls, last.thinking = calls, message.reasoning
            last.tool_name = _tool_name(message, conversation)
            last.tool_call_id = message.tool_call_id
        return parts
    core = CoreMessage(
        role=message.role,
        thinking=message.reasoning,
        tool_calls=calls,
        tool_call_id=message.tool_call_id,
    )
    if isinstance(content, str):
        core.content = content
        core.tool_name = _tool_name(message, conversation)
    elif message.tool_calls is None:
        raise Malformed(f"invalid message content type: {govalue.type_name(content)}")
    return [core]


def _part(role: str, part: Any) -> CoreMessage:
    match part:
        case {"type": "text", "text": str(text)}:
            return CoreMessage(role=role, content=text)
        case {"type": "image_url", "image_url": {"url": str(url)} | str(url)}:
            return CoreMessage(role=role, images=[datauris.image(url)])
        case {"type": "input_audio", "input_audio": {"data": str(data)}}:
            return CoreMessage(role=role, images=[_sound(data)])
        case {"type": "input_audio", "input_audio": {}}:
            raise Malformed("invalid input_audio format: missing data")
        case {"type": "input_audio"}:
            raise Malformed("invalid input_audio format")
    raise Malformed("invalid message format")


def _sound(data: str) -> bytes:
    try:
        return gobase64.decode(data)
    except ValueError as error:
        raise Malformed(f"invalid input_audio base64 data: {error}") from None


def _tool_name(message: Message, conversation: Sequence[Message]) -> str:
    """The function a tool's answer is of: named, or found by its call's id, the newest first."""
    if message.role.lower() != "tool":
        return ""
    if message.name or not message.tool_call_id:
        return message.name
    names = (c.function.name for c in _calls(conversation) if c.id == message.tool_call_id)
    return next(names, "")


def _calls(conversation: Sequence[Message]) -> Iterator[ToolCall]:
    for message in reversed(conversation):
        yield from message.tool_calls or ()


def _call(call: ToolCall) -> CoreToolCall:
    function = CoreFunction(name=call.function.name, arguments=arguments(call.function.arguments))
    return CoreToolCall(id=call.id, function=function)


def arguments(text: str) -> dict[str, Any]:
    """A call's arguments, which travel as JSON in a string; ``null`` is none."""
    try:
        value = gojson.value(text)
    except ValueError:
        value = ...
    if value is not None and not isinstance(value, dict):
        raise Malformed("invalid tool call arguments")
    return value or {}
