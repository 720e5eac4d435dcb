"""JSON that a model wrote, read as Go reads it."""

from __future__ import annotations

import json
import math
from typing import Any

from lhama.daemon import goscan
from lhama.daemon.prompt.parsers.parser import ParseError

_LONGEST_INT = 15
"""Digits that a float64 surely keeps."""
_NO_OBJECT = "Value looks like object, but can't find closing '}' symbol"


def value(text: str) -> Any:
    """Any JSON value. Raises ``ParseError`` with the words of Go's ``encoding/json``."""
    try:
        read = json.loads(text, parse_int=_int, parse_float=_float, parse_constant=_refuse)
    except RecursionError:
        raise ParseError("exceeded max depth") from None
    except ValueError as error:
        raise ParseError(goscan.refusal(text.encode()) or str(error)) from None
    return _without_surrogates(read) if "\\u" in text else read


def arguments(text: str) -> dict[str, Any]:
    """A call's arguments: an object, or ``null`` for none. Raises ``ParseError``."""
    return as_arguments(value(text))


def as_arguments(read: Any) -> dict[str, Any]:
    """A value as a call's arguments. Raises ``ParseError``."""
    if read is None:
        return {}
    if not isinstance(read, dict):
        raise ParseError(_NO_OBJECT)
    return read


def member(read: dict[str, Any], name: str) -> Any:
    """A member whose key is ``name`` in any case; ``None`` without one."""
    if name in read:
        return read[name]
    return next((value for key, value in read.items() if key.lower() == name), None)


def named_call(text: str, struct: str, field: str) -> tuple[str, dict[str, Any]]:
    """Name and arguments of an object ``{"name": …, "arguments": …}``. Raises ``ParseError``.

    ``struct`` and ``field`` are Go's names for the object and for its name.
    """
    read = value(text)
    if read is None:
        return "", {}
    if not isinstance(read, dict):
        raise ParseError(f"json: cannot unmarshal {_kind(read)} into Go value of type {struct}")
    name = member(read, "name")
    if name is not None and not isinstance(name, str):
        message = (
            f"json: cannot unmarshal {_kind(name)} into Go struct field {field} of type string"
        )
        raise ParseError(message)
    return name or "", as_arguments(member(read, "arguments"))


def _kind(read: Any) -> str:
    if isinstance(read, bool):
        return "bool"
    kinds = {str: "string", int: "number", float: "number", list: "array", dict: "object"}
    return kinds[type(read)]


def _int(digits: str) -> int | float:
    return int(digits) if len(digits) <= _LONGEST_INT else _float(digits)


def _float(digits: str) -> float:
    read = float(digits)
    if not math.isfinite(read):
        raise ValueError(f"json: cannot unmarshal number {digits} into Go value of type float64")
    return read


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def _without_surrogates(read: Any) -> Any:
    """Halves of characters that were escaped alone become U+FFFD, as in Go."""
    if isinstance(read, str):
        return read.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(read, list):
        return [_without_surrogates(item) for item in read]
    if isinstance(read, dict):
        return {_without_surrogates(key): _without_surrogates(item) for key, item in read.items()}
    return read
