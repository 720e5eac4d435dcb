"""The items of a Responses input, read from JSON as Go reads them.

Problems are ``ValueError``s that say in which item they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import msgspec

from lhama.daemon.durations import quote
from lhama.daemon.errors import Malformed
from lhama.daemon.protocol import gojson, govalue


class Part(msgspec.Struct):
    """A part of a content. ``type``: input_text, output_text, input_image or input_file."""

    go_package = "openai"

    type: str = ""
    text: str = ""
    image_url: str = ""


@dataclass(frozen=True, slots=True)
class InputMessage:
    role: str
    parts: list[Part]


class FunctionCall(msgspec.Struct):
    go_name = "ResponsesFunctionCall"

    call_id: str = ""
    name: str = ""
    arguments: str = ""


@dataclass(frozen=True, slots=True)
class FunctionCallOutput:
    call_id: str
    parts: list[Part]


class Reasoning(msgspec.Struct):
    """Thoughts of an earlier answer; ``encrypted_content`` is their plain text."""

    go_name = "ResponsesReasoningInput"

    encrypted_content: str = ""


class _Kind(msgspec.Struct):
    go_name = ""

    type: str = ""
    role: str = ""


class _Message(msgspec.Struct):
    go_name = ""

    role: str = ""
    content: Any = None


class _Output(msgspec.Struct):
    go_name = ""

    call_id: str = ""
    output: Any = None


Item: TypeAlias = InputMessage | FunctionCall | FunctionCallOutput | Reasoning


def read_input(value: Any) -> list[Item]:
    """A text is a user's message; of a list, what only documents an earlier search is left out."""
    if isinstance(value, str):
        return [InputMessage("user", [Part("input_text", value)])] if value else []
    items: list[Item] = []
    for at, raw in enumerate(_list(value, "input")):
        try:
            item = _item(raw)
        except (ValueError, Malformed) as error:
            raise ValueError(f"input[{at}]: {error}") from None
        if item is not None:
            items.append(item)
    return items


def _item(value: Any) -> Item | None:
    kind = gojson.bind(value, _Kind)
    match kind.type or ("message" if kind.role else ""):
        case "message":
            message = gojson.bind(value, _Message)
            return InputMessage(message.role, _parts(message.content, "content"))
        case "function_call":
            return gojson.bind(value, FunctionCall)
        case "function_call_output":
            output = gojson.bind(value, _Output)
            return FunctionCallOutput(output.call_id, _parts(output.output, "output"))
        case "reasoning":
            return gojson.bind(value, Reasoning)
        case "web_search_call":
            return None
        case "":
            raise ValueError("input item missing required 'type' field")
        case unknown:
            raise ValueError(f"unknown input item type: {quote(unknown)}")


def _parts(content: Any, member: str) -> list[Part]:
    if content is None or isinstance(content, str):
        return [Part("input_text", content or "")]
    parts = []
    for at, raw in enumerate(_list(content, member)):
        try:
            part = gojson.bind(raw, Part)
        except Malformed as error:
            raise ValueError(f"{member}[{at}]: {error}") from None
        if part.type not in ("input_text", "output_text", "input_image", "input_file"):
            raise ValueError(f"{member}[{at}]: unknown content type: {part.type}")
        parts.append(part)
    return parts


def _list(value: Any, member: str) -> list[Any]:
    if isinstance(value, list):
        return value
    raise ValueError(
        f"{member} must be a string or array: json: cannot unmarshal "
        f"{govalue.kind(value)} into Go value of type []json.RawMessage"
    )
