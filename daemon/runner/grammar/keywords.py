"""Keywords of a JSON Schema one by one: what llama.cpp's server refuses, and what is too much."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any, NoReturn

MAX_PROPERTIES = 2000
"""Of one object; the work grows with their square."""
MAX_PATTERNS = 200
"""Of one ``patternProperties``: they are compared pair by pair."""
MAX_LITERAL = 8192
"""Characters of a property's name, an ``enum``'s or a ``const``'s text."""
MAX_FACTOR = 100_000
"""Largest ``multipleOf``, its decimals aside: each remainder is a state. Larger ones are ignored,
as llama.cpp ignores all of them."""

MOST = 10**16 - 2
"""Largest integer where the schema sets no bound: the last of sixteen digits that a double holds."""

FORMATS = {
    *("date-time", "time", "date", "duration", "uuid"),
    *("email", "hostname", "ipv4", "ipv6", "uri"),
}
"""Those that llguidance knows. Others are ignored, as llama.cpp ignores them."""

Schema = dict[str, Any]


class SchemaError(ValueError):
    """The schema cannot be used; the message is llama.cpp's where it has one."""


def fail(path: str, problem: str) -> NoReturn:
    raise SchemaError(f"JSON schema error at {path}: {problem}")


OBJECT_KEYS = {"properties", "patternProperties"}
ARRAY_KEYS = {"items", "prefixItems"}
STRING_KEYS = {"pattern", "minLength", "maxLength", "format"}
_TYPES = {"object", "array", "string", "integer", "number", "boolean", "null"}


def as_dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def check_type(schema: Schema, path: str) -> None:
    given = schema.get("type")
    if given == []:
        fail(path, "type must not be empty")
    if "const" in schema or "enum" in schema:
        return
    kinds = {f"{path}/type/{at}": kind for at, kind in enumerate(as_list(given))}
    for place, kind in (kinds or {path: given}).items():
        if kind is not None and not isinstance(kind, str):
            fail(place, "type must be a string or an array of strings")
        if kind and kind not in _TYPES:
            fail(place, f"unrecognized type {kind}")


def type_seen(schema: Schema) -> str:
    """The type that keywords imply where none is given; empty: any."""
    if "const" in schema or "enum" in schema or "allOf" in schema:
        return ""
    if "properties" in schema or schema.get("additionalProperties", True) is not True:
        return "object"
    if ARRAY_KEYS & schema.keys():
        return "array"
    strings = STRING_KEYS - {"format"} & schema.keys()
    return "string" if strings or schema.get("format") in FORMATS else ""


def check_values(schema: Schema, path: str) -> None:
    if "enum" in schema:
        if not as_list(schema["enum"]):
            fail(path, "enum must be a non-empty array")
        for value in schema["enum"]:
            check_literal(value, path)
    check_literal(schema.get("const"), path)


def check_literal(value: Any, path: str) -> None:
    if isinstance(value, str) and len(value) > MAX_LITERAL:
        fail(path, f"a text of {len(value)} characters, more than {MAX_LITERAL}")


def check_count(schema: Schema, key: str, path: str) -> None:
    value = schema.get(key, 0)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        fail(path, f"{key} must be a non-negative integer")


def check_pattern(pattern: str) -> None:
    """Tell a pattern that is none from one that is only not supported, as llama.cpp does for
    those from ``^`` to ``$``; it ignores the others."""
    if not (len(pattern) > 1 and pattern[0] == "^" and pattern[-1] == "$"):
        return
    try:
        re.compile(pattern)
    except re.error as e:
        for beginning, problem in _NO_PATTERN.items():
            if e.msg.startswith(beginning):
                raise SchemaError(f"Invalid pattern {pattern}: {problem}") from e
    except OverflowError:
        pass


_NO_PATTERN = {
    "missing )": "unbalanced parentheses",
    "unbalanced parenthesis": "unbalanced parentheses",
    "unterminated character set": "unterminated character class",
    "nothing to repeat": "nothing to repeat",
    "bad escape (end": "trailing backslash",
}
"""Python's words and llama.cpp's."""


def read_number(out: Schema, path: str, *, whole: bool) -> None:
    """Bounds and factor; ``whole``: integers only, which get the bounds that are missing."""
    for key, exclusive, most in (
        ("minimum", "exclusiveMinimum", -MOST),
        ("maximum", "exclusiveMaximum", MOST),
    ):
        given = key if key in out else exclusive
        value = out.get(given, most)
        if whole and (isinstance(value, bool) or not isinstance(value, int | float)):
            fail(path, f"{given} must be a number")
        if whole and given not in out:
            out[key] = most
    factor = out.get("multipleOf")
    if isinstance(factor, int | float) and not _few_states(float(factor)):
        del out["multipleOf"]


def _few_states(factor: float) -> bool:
    _, digits, exponent = Decimal(str(factor)).normalize().as_tuple()
    coefficient = int("".join(map(str, digits)))
    if not isinstance(exponent, int) or not -10 < exponent < 10:
        return False
    return coefficient * int(10 ** max(exponent, 0)) <= MAX_FACTOR
