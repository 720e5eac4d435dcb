"""JSON as Go's ``encoding/json`` writes it into prompts: compact, maps sorted, HTML escaped.

Models saw this very spelling of tools and arguments, so it is part of the prompt's format.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from json.encoder import encode_basestring
from typing import Any

_SEPARATORS = {"\u2028": "\\u2028", "\u2029": "\\u2029"}
_LINES = str.maketrans(_SEPARATORS)
_HTML = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", **_SEPARATORS})
_LARGEST_EXACT_INT = 2**53
"""Go decodes JSON numbers into float64; integers beyond lose digits there and here."""


class Struct(dict[str, Any]):
    """An object whose key order is given, as a Go struct's; any other mapping is sorted."""


class OrderedMap(Struct):
    """Ollama's own map that keeps its order."""


@dataclass(frozen=True, slots=True)
class Style:
    """How JSON is spelled."""

    comma: str = ","
    colon: str = ":"
    html: bool = True
    """Escape ``<``, ``>`` and ``&``."""
    html_in_maps: bool = True
    """Escape them inside ordered maps even where nothing else is escaped."""
    sort: bool = False
    """Sort the keys of structs too, as of an object that went through a plain Go map."""


COMPACT = Style()
SPACED = Style(", ", ": ")
"""Python's spacing, which chat templates' ``tojson`` has."""
SPACED_TEXT = Style(", ", ": ", html=False)
PYTHON = Style(", ", ": ", html=False, html_in_maps=False)
SORTED = Style(sort=True)


def marshal(value: Any, style: Style = COMPACT) -> str:
    """The JSON text of ``value``. Raises ``ValueError`` for NaN, infinities and foreign types."""
    if isinstance(value, str):
        return encode_basestring(value).translate(_HTML if style.html else _LINES)
    if isinstance(value, Mapping):
        return "{" + style.comma.join(_members(value, style)) + "}"
    if isinstance(value, list | tuple):
        return "[" + style.comma.join([marshal(item, style) for item in value]) + "]"
    return _scalar(value)


def indented(value: Any, indent: str, margin: str = "\n") -> str:
    """The JSON text of ``value`` as Go's ``MarshalIndent`` breaks it into lines.

    ``margin``: a line feed and what the lines of the value begin with.
    """
    inner = margin + indent
    if isinstance(value, Mapping) and value:
        lines = [f"{marshal(key)}: {indented(value[key], indent, inner)}" for key in _keys(value)]
        return "{" + inner + f",{inner}".join(lines) + margin + "}"
    if isinstance(value, list | tuple) and value:
        lines = [indented(item, indent, inner) for item in value]
        return "[" + inner + f",{inner}".join(lines) + margin + "]"
    return marshal(value)


def _members(value: Mapping[str, Any], style: Style) -> list[str]:
    if isinstance(value, OrderedMap) and style.html_in_maps and not style.html:
        style = Style(style.comma, style.colon)
    keys = sorted(value) if style.sort else _keys(value)
    return [marshal(str(key), style) + style.colon + marshal(value[key], style) for key in keys]


def _keys(value: Mapping[str, Any]) -> list[str]:
    return list(value) if isinstance(value, Struct) else sorted(value)


def _scalar(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value) if abs(value) <= _LARGEST_EXACT_INT else _number(float(value))
    if isinstance(value, float):
        return _number(value)
    raise ValueError(f"json: unsupported type: {type(value).__name__}")


def _number(value: float) -> str:
    """Shortest digits that read back; an exponent only below 1e-6 and from 1e21 on."""
    if not math.isfinite(value):
        raise ValueError("json: unsupported value")
    if value == 0:
        return "-0" if math.copysign(1, value) < 0 else "0"
    if 1e-6 <= abs(value) < 1e21:
        text = format(Decimal(repr(value)), "f")
        return text.rstrip("0").rstrip(".") if "." in text else text
    mantissa, _, exponent = repr(value).partition("e")
    digits = exponent.lstrip("+-").lstrip("0")
    return f"{mantissa.removesuffix('.0')}e{'-' if exponent.startswith('-') else '+'}{digits}"
