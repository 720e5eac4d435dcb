"""What a Go template sees of messages and tools.

Messages are plain dicts. Tools and arguments print as JSON when an action names them bare, as
Ollama's types with a ``String`` method do, and can still be ranged over, indexed and measured.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from gotpl import GoSeq2

from lhama.daemon.prompt.jsontext import Struct, marshal
from lhama.daemon.prompt.tools import Tool, read_all
from lhama.daemon.wire.messages import Message, ToolCall

_PARAMETERS = ("type", "$defs", "items", "required", "properties")
_PROPERTY = ("anyOf", "type", "items", "description", "enum", "properties", "required")
_GO_NAMES = {"$defs": "Defs"}


class JsonList(Sequence[Any]):
    """A list that prints as JSON. Not a ``list``: gotpl prints those Go's way, ``[a b]``."""

    def __init__(self, items: list[Any], wire: list[Any]) -> None:
        self.items = items
        self.wire = wire

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: Any) -> Any:
        return self.items[index]

    def __str__(self) -> str:
        return marshal(self.wire)


class JsonStruct:
    """A struct that prints as JSON; ``fields`` are its Go names."""

    def __init__(self, fields: dict[str, Any], wire: Struct) -> None:
        self.fields = fields
        self.wire = wire

    def __gotemplate_lookup__(self, name: str) -> Any:
        return self.fields[name]

    def __str__(self) -> str:
        return marshal(self.wire)


class JsonMap(GoSeq2):  # type: ignore[misc]  # gotpl is untyped for mypy
    """A map that prints as JSON and ranges in key order; ``GoSeq2`` gives the range its pairs."""

    def __init__(self, wire: Mapping[str, Any]) -> None:
        super().__init__([(key, wire[key]) for key in sorted(wire)])
        object.__setattr__(self, "wire", wire)

    def __gotemplate_lookup__(self, name: str) -> Any:
        return self.wire[name]

    def __len__(self) -> int:
        return len(self.wire)

    def __str__(self) -> str:
        return marshal(self.wire)


def plain(value: Any) -> Any:
    """The bare value behind a wrapper, for functions."""
    return value.wire if isinstance(value, JsonList | JsonStruct | JsonMap) else value


def messages(turns: Iterable[Message]) -> list[dict[str, Any]]:
    """``.Messages``."""
    return [
        {
            "Role": turn.role,
            "Content": turn.content,
            "Thinking": turn.thinking,
            "Images": list(turn.images),
            "ToolCalls": [_call(call) for call in turn.tool_calls],
            "ToolName": turn.tool_name,
            "ToolCallID": turn.tool_call_id,
        }
        for turn in turns
    ]


def _call(call: ToolCall) -> dict[str, Any]:
    function = {"Index": call.index, "Name": call.name, "Arguments": JsonMap(call.arguments)}
    return {"ID": call.id, "Function": function}


def tools(definitions: Sequence[Mapping[str, Any]]) -> JsonList | list[Any]:
    """``.Tools``; empty is an empty list, which is false."""
    if not definitions:
        return []
    wires = [_wire(tool) for tool in read_all(definitions)]
    return JsonList([_tool(wire) for wire in wires], wires)


def _wire(tool: Tool) -> Struct:
    """The tool as templates print it: with a description in any case, properties in a plain map."""
    parameters = Struct(tool.parameters)
    if parameters["properties"] is not None:
        parameters["properties"] = dict(parameters["properties"])
    body = Struct(name=tool.name, description=tool.description, parameters=parameters)
    return Struct({**tool.wire, "function": body})


def _tool(wire: Struct) -> JsonStruct:
    function: Struct = wire["function"]
    schema: Struct = function["parameters"]
    fields = {_go_name(key): schema.get(key) for key in _PARAMETERS}
    fields["Properties"] = {
        name: _property(value) for name, value in (schema["properties"] or {}).items()
    }
    fields["Required"] = schema.get("required") or []
    body = {
        "Name": function["name"],
        "Description": function["description"],
        "Parameters": JsonStruct(fields, schema),
    }
    outer = {
        "Type": wire["type"],
        "Items": wire.get("items"),
        "Function": JsonStruct(body, function),
    }
    return JsonStruct(outer, wire)


def _property(wire: Any) -> Any:
    if not isinstance(wire, Struct):
        return wire
    fields = {_go_name(key): wire.get(key) for key in _PROPERTY}
    fields["Type"] = wire.get("type") or ""
    fields["Description"] = wire.get("description") or ""
    fields["Enum"] = wire.get("enum") or []
    return JsonStruct(fields, wire)


def _go_name(key: str) -> str:
    return _GO_NAMES.get(key) or key[0].upper() + key[1:]
