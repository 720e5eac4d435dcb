"""How Gemma 4 is told about tools."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lhama.daemon.prompt.gotext import sprint
from lhama.daemon.prompt.renderers.bracketed import Notation
from lhama.daemon.prompt.tools import Tool, type_names

NOTATION = Notation('<|"|>', null="null")

_KEYWORDS = frozenset({"description", "type", "properties", "required", "nullable"})
"""Never names of parameters: the template takes them for the schema's own keys."""


def declaration(tool: Tool) -> str:
    declared = {name: _declared(value) for name, value in tool.properties.items()}
    return f"<|tool>{NOTATION.declaration(tool, _properties(declared))}<tool|>"


def _declared(schema: Mapping[str, Any]) -> dict[str, Any]:
    """A parameter's schema with its types as one text: Python's list of several, as the template
    prints it, and simple unions as such a list."""
    types = type_names(schema) or _union(schema)
    kind = types[0] if len(types) == 1 else str([t.upper() for t in types])
    declared = {**schema, **({"type": kind} if types else {})}
    if schema.get("properties") is not None:
        declared["properties"] = {k: _declared(v) for k, v in schema["properties"].items()}
    return declared


def _union(schema: Mapping[str, Any]) -> list[str]:
    """The types of an ``anyOf`` whose choices are types and nothing else."""
    choices = schema.get("anyOf") or []
    if any(list(choice) != ["type"] for choice in choices):
        return []
    return list(dict.fromkeys(kind for choice in choices for kind in type_names(choice)))


def _properties(properties: Mapping[str, Any]) -> str:
    return ",".join(
        f"{name}:{{{_property(properties[name])}}}"
        for name in sorted(properties)
        if name not in _KEYWORDS and isinstance(properties[name], Mapping)
    )


def _property(schema: Mapping[str, Any]) -> str:
    parts = []
    if (text := schema.get("description")) and isinstance(text, str):
        parts.append(f"description:{NOTATION.string(text)}")
    types = _upper(schema.get("type"))
    kind = types[0] if types else ""
    if kind == "STRING" and isinstance(schema.get("enum"), list) and schema["enum"]:
        parts.append(f"enum:{NOTATION.strings([sprint(value) for value in schema['enum']])}")
    if kind == "ARRAY" and isinstance(schema.get("items"), Mapping) and schema["items"]:
        parts.append(f"items:{{{_items(schema['items'])}}}")
    if schema.get("nullable") is True:
        parts.append("nullable:true")
    if kind == "OBJECT":
        nested = schema.get("properties")
        nested = nested if isinstance(nested, Mapping) else schema
        parts.append(f"properties:{{{_properties(nested)}}}")
        if required := _strings(schema.get("required")):
            parts.append(f"required:{NOTATION.strings(required)}")
    if types:
        parts.append(_type(types))
    return ",".join(parts)


def _items(items: Mapping[str, Any]) -> str:
    """The schema of an array's items, keys sorted."""
    parts = []
    for key in sorted(items):
        value = items[key]
        if value is None:
            continue
        if key == "properties":
            parts.append(
                f"properties:{{{_properties(value) if isinstance(value, Mapping) else ''}}}"
            )
        elif key == "required":
            parts.append(f"required:{NOTATION.strings(_strings(value))}")
        elif key == "type":
            types = _upper(value)
            parts.append(_type(types) if types else "")
        else:
            parts.append(f"{key}:{NOTATION.value(value, quoted_keys=True)}")
    return ",".join(parts)


def _type(types: Sequence[str]) -> str:
    shown = NOTATION.string(types[0]) if len(types) == 1 else NOTATION.strings(types)
    return f"type:{shown}"


def _upper(kind: object) -> list[str]:
    return [name.upper() for name in ([kind] if isinstance(kind, str) else _strings(kind))]


def _strings(value: object) -> list[str]:
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []
