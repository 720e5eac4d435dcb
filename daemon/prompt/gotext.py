"""Values as Go's ``fmt`` prints them with ``%v``: plain arguments in prompts, parameters in ``show``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from lhama.daemon.durations import quote

SPACE = (
    " \t\n\v\f\r\x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000"
)
"""What Go's ``unicode.IsSpace`` calls space."""

_PLAIN_POWERS = range(-4, 6)
"""Decimal exponents of numbers that are written without one."""


def sprint(value: Any) -> str:
    """``value``, which JSON could hold, printed with ``%v``; every number is a float64."""
    if isinstance(value, str):
        return value
    if value is None:
        return "<nil>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return number(value)
    if isinstance(value, Mapping):
        return "map[" + " ".join(f"{key}:{sprint(value[key])}" for key in sorted(value)) + "]"
    return "[" + " ".join(map(sprint, value)) + "]"


def literal(value: Any) -> str:
    """``%#v``, as far as it differs: a string is quoted."""
    return quote(value) if isinstance(value, str) else sprint(value)


def whole(value: float) -> str | None:
    """The digits of a number that is an int64; ``None`` for others."""
    return str(int(value)) if -(2.0**63) <= value < 2.0**63 and value == int(value) else None


def number(value: float) -> str:
    """A float64's shortest digits, with an exponent from a million on and below 0.0001."""
    try:
        value = float(value)
    except OverflowError:
        value = math.inf if value > 0 else -math.inf
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "+Inf" if value > 0 else "-Inf"
    sign, digits, exponent = Decimal(repr(value)).normalize().as_tuple()
    assert isinstance(exponent, int)
    power = len(digits) - 1 + exponent
    if power in _PLAIN_POWERS:
        return repr(value).removesuffix(".0")
    text = "".join(map(str, digits))
    mantissa = text if len(text) == 1 else f"{text[0]}.{text[1:]}"
    return f"{'-' * sign}{mantissa}e{power:+03d}"
