"""JSON as Go's ``encoding/json`` writes it into prompts: compact, maps sorted, HTML escaped.

Models saw this very spelling of tools and arguments, so it is part of the prompt's format.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from decimal import Decimal
from json.encoder import encode_basestring
from typing import Any

_ESCAPES = str.maketrans(
    {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}
)
_LARGEST_EXACT_INT = 2**53
"""Go decodes JSON numbers into float64; integers beyond lose digits there and here."""


class Struct(dict[str, Any]):
    """An object whose key order is given, as a Go struct's; any other mapping is sorted."""


def marshal(value: Any) -> str:
    """The JSON text of ``value``. Raises ``ValueError`` for NaN, infinities and foreign types."""
    if isinstance(value, str):
        return encode_basestring(value).translate(_ESCAPES)
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value) if abs(value) <= _LARGEST_EXACT_INT else _number(float(value))
    if isinstance(value, float):
        return _number(value)
    if isinstance(value, Mapping):
        keys = list(value) if isinstance(value, Struct) else sorted(value)
        return "{" + ",".join(f"{marshal(str(k))}:{marshal(value[k])}" for k in keys) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(marshal, value)) + "]"
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
