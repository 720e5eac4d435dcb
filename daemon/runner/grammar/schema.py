"""A JSON Schema as llama.cpp's server reads it: what it refuses, and what it takes silence to mean.

Ollama hands ``format`` to that server, so its reading is what clients know. The grammar itself is
llguidance's, which follows the standard and leaves more open; this module closes what llama.cpp
closes: objects have the properties they list and no others, those that must be there first,
tuples their exact length, integers sixteen digits at most. A small model left free there rambles until its context is full.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from typing import Any

from lhama.daemon.runner.grammar.keywords import (
    ARRAY_KEYS,
    FORMATS,
    MAX_PATTERNS,
    MAX_PROPERTIES,
    OBJECT_KEYS,
    STRING_KEYS,
    Schema,
    as_dict,
    as_list,
    check_count,
    check_literal,
    check_pattern,
    check_type,
    check_values,
    fail,
    read_number,
    type_seen,
)

MAX_DEPTH = 100
"""Schemas inside schemas. llguidance gives up a little earlier."""


def read(text: str, works: Callable[[str], bool] = lambda pattern: True) -> Schema:
    """The schema in ``text`` as llguidance is to see it; ``works``: whether it can use a pattern.

    Raises ``SchemaError``.
    """
    try:
        root = json.loads(text)
        if root == {}:
            root = {"type": "object"}  # llama.cpp's reading; anything in it would say "any value"
        reader = _Reader(root, works)
        schema = reader.node(root, "#")
        return {**schema, "$defs": reader.targets()}
    except RecursionError:
        fail("#", "nested too deeply")


class _Reader:
    """Reads one document."""

    def __init__(self, root: Any, works: Callable[[str], bool]) -> None:
        self._root = root
        self._works = works
        self._places: dict[tuple[str, bool], str] = {}
        self._depth = 0

    def targets(self) -> dict[str, Schema]:
        """All that the nodes read so far refer to, and what that refers to in turn."""
        read: dict[str, Schema] = {}
        while len(read) < len(self._places):
            for (ref, part), place in list(self._places.items())[len(read) :]:
                read[place] = self.node(self._resolve(ref, ref), ref, part=part)
        return read

    def node(self, schema: Any, path: str, *, part: bool = False) -> Schema:
        """One schema, read. ``part``: of several that describe one object together, so that none
        of them may close it."""
        if not isinstance(schema, dict):
            fail(path, "schema must be an object")
        if self._depth == MAX_DEPTH:
            fail(path, "nested too deeply")
        self._depth += 1
        out = {k: v for k, v in schema.items() if k not in _ELSEWHERE}
        if "required" in out:
            out["required"] = [name for name in as_list(out["required"]) if isinstance(name, str)]
        several = sum(1 for key in _WHOLE if key in schema) + len(as_list(schema.get("allOf"))) > 1
        self._composition(out, path, part or several)
        self._type(out, path, part or several)
        if several and not part:
            names = dict.fromkeys(self._property_names(schema, set()))
            if names and "additionalProperties" not in out:
                _close(out, names)
        self._depth -= 1
        return out

    # --------------------------------------------------------------------------------- composition

    def _composition(self, out: Schema, path: str, part: bool) -> None:
        if "$ref" in out:
            out["$ref"] = self._reference(out["$ref"], path, part)
        for key in ("oneOf", "anyOf", "allOf"):
            if key in out:
                if not isinstance(out[key], list):
                    fail(f"{path}/{key}", "must be an array of schemas")
                if not out[key]:
                    fail(f"{path}/{key}", "must not be empty")
                out[key] = self._nodes(out[key], f"{path}/{key}", part=part)

    def _nodes(self, schemas: list[Any], path: str, *, part: bool = False) -> list[Schema]:
        return [self.node(s, f"{path}/{i}", part=part) for i, s in enumerate(schemas)]

    def _reference(self, ref: Any, path: str, part: bool) -> str:
        """The new place of what ``ref`` points to; ``targets`` reads it, once for each way in
        which it is used."""
        if not isinstance(ref, str):
            fail(path, "$ref must be a string")
        if not ref.startswith("#/"):
            problem = (
                f"unsupported $ref {ref}, only references into the same document are supported"
            )
            fail(path, problem)
        self._resolve(ref, path)
        place = self._places.setdefault((ref, part), str(len(self._places)))
        return f"#/$defs/{place}"

    def _resolve(self, ref: str, path: str) -> Any:
        target = self._root
        for step in ref[2:].split("/"):
            if isinstance(target, list):
                if not step.isdecimal() or int(step) >= len(target):
                    fail(path, f"cannot resolve $ref {ref}, {step} is out of range")
                target = target[int(step)]
            elif isinstance(target, dict) and step in target:
                target = target[step]
            else:
                fail(path, f"cannot resolve $ref {ref}, {step} not found")
        return target

    def _property_names(self, schema: Any, seen: set[str]) -> list[str]:
        """The properties that a schema and its parts speak of."""
        if not isinstance(schema, dict):
            return []
        names = list(as_dict(schema.get("properties")))
        for key in ("oneOf", "anyOf", "allOf"):
            for inner in as_list(schema.get(key)):
                names += self._property_names(inner, seen)
        ref = schema.get("$ref")
        if isinstance(ref, str) and ref not in seen:
            seen.add(ref)
            names += self._property_names(self._resolve(ref, "#"), seen)
        return names

    # --------------------------------------------------------------------------------------- types

    def _type(self, out: Schema, path: str, part: bool) -> None:
        """What hangs on the type, given or seen from the keywords."""
        if not _COMPOSED & out.keys():
            check_type(out, path)
            given = out.get("type")
            if not all(given if isinstance(given, list) else [given]) or _LITERAL & out.keys():
                out.pop("type", None)
                if seen := type_seen(out):
                    out["type"] = seen
        check_values(out, path)
        given = out.get("type")
        types = [given] if isinstance(given, str) else as_list(given)
        if "object" in types or OBJECT_KEYS & out.keys():
            self._object(out, path, part)
        if "array" in types or ARRAY_KEYS & out.keys():
            self._array(out, path)
        if "string" in types or STRING_KEYS & out.keys():
            self._string(out, path)
        if "integer" in types or "number" in types:
            read_number(out, path, whole="number" not in types)

    def _object(self, out: Schema, path: str, part: bool) -> None:
        for key, most in (("properties", MAX_PROPERTIES), ("patternProperties", MAX_PATTERNS)):
            if key in out:
                if not isinstance(out[key], dict):
                    fail(path, f"{key} must be an object")
                if len(out[key]) > most:
                    fail(path, f"{len(out[key])} {key}, more than {most}")
                out[key] = {k: self.node(v, f"{path}/{key}/{k}") for k, v in out[key].items()}
                for name in out[key]:
                    check_literal(name, path)
        if "properties" in out:
            required = as_list(out.get("required"))
            out["properties"] = dict(
                sorted(out["properties"].items(), key=lambda member: member[0] not in required)
            )
        more = out.get("additionalProperties")
        if isinstance(more, dict):
            out["additionalProperties"] = self.node(more, f"{path}/additionalProperties")
        elif "additionalProperties" in out and not isinstance(more, bool):
            fail(path, "additionalProperties must be a boolean or a schema")
        elif "properties" in out and more is None and not part:
            _close(out, ())

    def _array(self, out: Schema, path: str) -> None:
        for key in ("minItems", "maxItems"):
            check_count(out, key, path)
        for key in ("prefixItems", "items"):
            items = out.get(key)
            if isinstance(items, list):
                out["prefixItems"] = self._nodes(items, f"{path}/{key}")
                out.setdefault("minItems", len(items))
                if key == "items" or "items" not in out:
                    out["items"] = False
            elif key in out and items is not False:
                out[key] = self.node(items, f"{path}/{key}")

    def _string(self, out: Schema, path: str) -> None:
        pattern, form = out.get("pattern", ""), out.get("format", "")
        if not isinstance(pattern, str):
            fail(path, "pattern must be a string")
        if not isinstance(form, str):
            fail(path, "format must be a string")
        for key in ("minLength", "maxLength"):
            check_count(out, key, path)
        if pattern and not self._works(pattern):
            check_pattern(pattern)
            del out["pattern"]  # as llama.cpp does with what it cannot express
        if re.fullmatch(r"uuid[1-5]", form):
            out["format"] = "uuid"
        elif form not in FORMATS:
            out.pop("format", None)


_ELSEWHERE = {"$defs", "definitions", "$id", "id", "$schema", "$comment", "x-guidance"}
"""Not part of the schema read: definitions are followed by reference, the rest says nothing."""
_WHOLE = ("properties", "$ref", "oneOf", "anyOf")
"""Each describes an object by itself."""
_COMPOSED = {"$ref", "oneOf", "anyOf"}
_LITERAL = {"const", "enum"}
"""What they list counts, whatever ``type`` says."""


def _close(out: Schema, names: Iterable[str]) -> None:
    """Allow the properties there are, ``names``, and what is required but nowhere described."""
    properties = dict(as_dict(out.get("properties")))
    for name in (*names, *as_list(out.get("required"))):
        if isinstance(name, str):
            properties.setdefault(name, {})
    out["properties"], out["additionalProperties"] = properties, False
