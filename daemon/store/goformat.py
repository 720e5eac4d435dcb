"""Values as Go's ``fmt`` prints them, for the texts of ``show``."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any

from lhama.daemon.durations import quote


def plain(value: Any) -> str:
    """``%v``: strings bare, numbers as float64, since Go reads every JSON number so."""
    if isinstance(value, str):
        return value
    if value is None:
        return "<nil>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return number(value)
    if isinstance(value, dict):
        return "map[" + " ".join(f"{k}:{plain(value[k])}" for k in sorted(value)) + "]"
    return "[" + " ".join(map(plain, value)) + "]"


def literal(value: Any) -> str:
    """``%#v``: as ``plain``, but strings quoted."""
    return quote(value) if isinstance(value, str) else plain(value)


def number(value: float) -> str:
    """``%v`` of a float64: fewest digits, an exponent below 1e-4 and from 1e6 on."""
    try:
        value = float(value)
    except OverflowError:
        value = math.inf if value > 0 else -math.inf
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "+Inf" if value > 0 else "-Inf"
    if value == 0:
        return "-0" if math.copysign(1, value) < 0 else "0"
    sign, digits, exponent = Decimal(repr(value)).as_tuple()
    text = "".join(map(str, digits)).rstrip("0")
    power = len(digits) + int(exponent) - 1
    if -4 <= power < 6:
        whole = f"{Decimal(repr(value)):f}"
        return whole.rstrip("0").rstrip(".") if "." in whole else whole
    mantissa = text[0] + ("." + text[1:] if len(text) > 1 else "")
    return f"{'-' if sign else ''}{mantissa}e{'-' if power < 0 else '+'}{abs(power):02d}"


def each(parameters: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Parameters sorted by name, one line each: a list has one for every element.

    Go's order is random; sorted is what its recordings happen to show.
    """
    for name in sorted(parameters):
        value = parameters[name]
        for item in value if isinstance(value, list) else [value]:
            yield name, item
