"""Tools that a request declares, as templates, renderers and parsers see them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lhama.daemon.prompt.jsontext import OrderedMap, Struct

_PARAMETERS = ("$defs", "items", "required")
_PROPERTY = ("anyOf", "type", "items", "description", "enum", "properties", "required")
_STRUCTURED = ("$defs", "items", "properties")
"""Keys that stay where they are there, however empty."""


@dataclass(frozen=True, slots=True)
class Tool:
    """One function. ``wire`` is all of it in the key order of Ollama's ``api.Tool``; schema keys
    that Ollama does not know are lost, as there."""

    name: str
    description: str
    wire: Struct

    @classmethod
    def read(cls, definition: Mapping[str, Any]) -> Tool:
        """The tool of one element of a request's ``tools``."""
        function = _mapping(definition.get("function"))
        body = Struct(name=function.get("name") or "")
        if function.get("description"):
            body["description"] = function["description"]
        body["parameters"] = _parameters(_mapping(function.get("parameters")))
        wire = Struct(type=definition.get("type") or "")
        if definition.get("items") is not None:
            wire["items"] = definition["items"]
        wire["function"] = body
        return cls(body["name"], body.get("description", ""), wire)

    @property
    def function(self) -> Struct:
        """``name``, ``description`` and ``parameters``."""
        return self.wire["function"]  # type: ignore[no-any-return]

    @property
    def parameters(self) -> Struct:
        """``type``, ``$defs``, ``items``, ``required`` and ``properties``."""
        return self.wire["function"]["parameters"]  # type: ignore[no-any-return]

    @property
    def properties(self) -> dict[str, Struct]:
        """Each parameter's schema by its name; none also where the request had none."""
        return self.parameters["properties"] or {}

    @property
    def required(self) -> list[str]:
        return self.parameters.get("required") or []

    def types(self, parameter: str) -> list[str]:
        """What JSON types a parameter may have; none for one that is not declared."""
        schema: Mapping[str, Any] = self.properties.get(parameter, {})
        if choices := schema.get("anyOf"):
            return [name for choice in choices for name in type_names(choice)]
        return type_names(schema)


def read_all(definitions: Sequence[Mapping[str, Any]]) -> list[Tool]:
    return [Tool.read(definition) for definition in definitions]


def type_names(schema: Mapping[str, Any]) -> list[str]:
    """``type`` of a schema, which is one name or several."""
    kind = schema.get("type") or []
    return [kind] if isinstance(kind, str) else list(kind)


def _parameters(given: Mapping[str, Any]) -> Struct:
    schema = Struct(type=given.get("type") or "")
    schema |= {key: given[key] for key in _PARAMETERS if _present(key, given)}
    schema["properties"] = _properties(given.get("properties"))
    return schema


def _properties(given: Any) -> OrderedMap | None:
    if given is None:
        return None
    return OrderedMap({name: _property(value) for name, value in _mapping(given).items()})


def _property(given: Any) -> Struct:
    """One parameter's schema."""
    schema = _mapping(given)
    wire = Struct({key: schema[key] for key in _PROPERTY if _present(key, schema)})
    if isinstance(wire.get("type"), list) and len(wire["type"]) == 1:
        wire["type"] = wire["type"][0]
    if isinstance(wire.get("anyOf"), list):
        wire["anyOf"] = [_property(choice) for choice in wire["anyOf"]]
    if "properties" in wire:
        wire["properties"] = _properties(wire["properties"])
    return wire


def _present(key: str, schema: Mapping[str, Any]) -> bool:
    return schema.get(key) is not None if key in _STRUCTURED else bool(schema.get(key))


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
