"""The items of a Responses input, read from JSON as Go reads them.

Problems are ``ValueError``s that say in which item they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, TypeAlias

import msgspec

from lhama.daemon.durations import quote
from lhama.daemon.errors import Malformed
from lhama.daemon.protocol import gojson, govalue
from lhama.daemon.protocol.annotations import Custom


class Text(msgspec.Struct):
    go_package = "openai"
    go_name = "ResponsesTextContent"

    text: str = ""


class OutputText(msgspec.Struct):
    go_package = "openai"
    go_name = "ResponsesOutputTextContent"

    text: str = ""


class Image(msgspec.Struct):
    go_package = "openai"
    go_name = "ResponsesImageContent"

    detail: str = ""
    file_id: str = ""
    image_url: str = ""


class File(msgspec.Struct):
    go_package = "openai"
    go_name = "ResponsesFileContent"

    file_data: str = ""
    file_id: str = ""
    file_url: str = ""
    filename: str = ""


Part: TypeAlias = Text | OutputText | Image | File

_PARTS: dict[str, type[Part]] = {
    "input_text": Text,
    "output_text": OutputText,
    "input_image": Image,
    "input_file": File,
}


class _PartKind(msgspec.Struct):
    go_name = ""
    go_struct = 'struct { Type string "json:\\"type\\"" }'

    type: str = ""


@dataclass(frozen=True, slots=True)
class InputMessage:
    role: str
    parts: list[Part]


class FunctionCall(msgspec.Struct):
    go_package = "openai"
    go_name = "ResponsesFunctionCall"

    id: str = ""
    call_id: str = ""
    name: str = ""
    arguments: str = ""


@dataclass(frozen=True, slots=True)
class FunctionCallOutput:
    call_id: str
    parts: list[Part]


class Summary(msgspec.Struct):
    go_package = "openai"
    go_name = "ResponsesReasoningSummary"

    type: str = ""
    text: str = ""


class Reasoning(msgspec.Struct):
    """Thoughts of an earlier answer; ``encrypted_content`` is their plain text."""

    go_package = "openai"
    go_name = "ResponsesReasoningInput"

    id: str = ""
    summary: list[Summary] = []
    encrypted_content: str = ""


class _Kind(msgspec.Struct):
    go_name = ""
    go_struct = 'struct { Type string "json:\\"type\\""; Role string "json:\\"role\\"" }'

    type: str = ""
    role: str = ""


_Written = Annotated[Any, Custom("json.RawMessage", lambda value: value)]


class _Message(msgspec.Struct):
    go_name = ""

    role: str = ""
    content: _Written = None


class _Output(msgspec.Struct):
    go_name = ""

    call_id: str = ""
    output: _Written = None


Item: TypeAlias = InputMessage | FunctionCall | FunctionCallOutput | Reasoning


def read_input(value: Any) -> list[Item]:
    """A text is a user's message; of a list, what only documents an earlier search is left out."""
    if isinstance(value, str):
        return [InputMessage("user", [Text(value)])] if value else []
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
        return [Text(content or "")]
    parts: list[Part] = []
    for at, raw in enumerate(_list(content, member)):
        try:
            kind = gojson.bind(raw, _PartKind).type
            if kind not in _PARTS:
                raise ValueError(f"unknown content type: {kind}")
            parts.append(gojson.bind(raw, _PARTS[kind]))
        except (ValueError, Malformed) as error:
            raise ValueError(f"{member}[{at}]: {error}") from None
    return parts


def _list(value: Any, member: str) -> list[Any]:
    if isinstance(value, list):
        return value
    raise ValueError(
        f"{member} must be a string or array: json: cannot unmarshal "
        f"{govalue.kind(value)} into Go value of type []json.RawMessage"
    )
