"""JSON values on their way into Go's types: as they were written, where they are, what is wrong.

Go reports the first mismatch only after it has read the whole value, because an error of a type
with a decoder of its own (``keep_alive``, ``think`` …) stops it and wins.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import msgspec

from lhama.daemon.protocol.goencode import go_float

_NUMBERS = ("int", "int32", "int64", "uint8", "float32", "float64")

EXACT_INTEGERS = 2**53
"""Beyond this a number that may be anything is rounded: Go makes each a float64."""


@dataclass(frozen=True, slots=True)
class Number:
    """A number as it was written: errors name it so."""

    text: str

    def is_integer(self) -> bool:
        return self.text.lstrip("-").isdigit()


@dataclass(frozen=True, slots=True)
class Object:
    """An object as it was written: a key may come twice."""

    members: list[tuple[str, Any]]


class Mismatch(ValueError):
    """Go's ``UnmarshalTypeError``: what was found for which Go type, and where."""

    def __init__(self, found: str, go: str) -> None:
        super().__init__(found)
        self.found, self.go, self.path = found, go, ""
        self.struct: str | None = None

    def within(self, scope: Scope) -> Mismatch:
        """As an error of what is being read there: the place around it comes first."""
        if scope.struct is not None:
            self.struct = scope.struct
            self.path = ".".join(part for part in (scope.path, self.path) if part)
        return self

    def __str__(self) -> str:
        place = "value" if self.struct is None else f"struct field {self.struct}.{self.path}"
        return f"json: cannot unmarshal {self.found} into Go {place} of type {self.go}"


class Abort(Exception):
    """An error that stops the decoding at once."""

    def __init__(self, error: ValueError, scope: Scope) -> None:
        super().__init__(error)
        self.error = error.within(scope) if isinstance(error, Mismatch) else error


@dataclass(slots=True)
class Scope:
    """Where in the value we are; ``saved`` is the first error that did not stop the decoding."""

    member: Callable[[Any], Any]
    """The value of a struct's member."""
    struct: str | None = None
    """The innermost struct's name, empty for one without; ``None`` outside of any."""
    path: str = ""
    saved: ValueError | None = None

    def mismatch(self, value: Any, go: str) -> None:
        found = kind(value)
        # Go names the number only where it expected one of another kind.
        if found == "number" and go in _NUMBERS:
            found = f"number {_written(value)}"
        self.save(Mismatch(found, go))

    def save(self, error: ValueError) -> None:
        if self.saved is None:
            self.saved = error.within(self) if isinstance(error, Mismatch) else error


def _written(number: Any) -> str:
    if isinstance(number, Number):
        return number.text
    return go_float(number).decode() if isinstance(number, float) else str(number)


def type_name(value: Any) -> str:
    """The Go type that a JSON value has where any is taken, as ``%T`` prints it."""
    names = {bool: "bool", str: "string", list: "[]interface {}", dict: "map[string]interface {}"}
    return "<nil>" if value is None else names.get(type(value), "float64")


def kind(value: Any) -> str:
    """What Go calls a JSON value."""
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int | float | Number):
        return "number"
    if isinstance(value, str):
        return "string"
    return "array" if isinstance(value, list) else "object"


def plain(value: Any, *, huge: bool = False) -> Any:
    """A value whose type is up to it: numbers as Go's float64. Raises ``Mismatch`` for a number
    that is none; ``huge`` leaves it as it was written."""
    if isinstance(value, Number):
        return value if huge and math.isinf(float(value.text)) else _float64(value)
    if isinstance(value, int) and not -EXACT_INTEGERS <= value <= EXACT_INTEGERS:
        return float(value)
    if isinstance(value, list):
        return [plain(item, huge=huge) for item in value]
    if isinstance(value, dict | Object):
        return {key: plain(item, huge=huge) for key, item in members(value)}
    return value


def _float64(number: Number) -> float:
    value = float(number.text)
    if math.isinf(value):
        raise Mismatch(f"number {number.text}", "float64")
    if number.is_integer() and abs(value) <= EXACT_INTEGERS:
        return int(number.text)
    return value


def text(value: Any) -> bytes:
    """A value's JSON, as far as it is known how it was written."""
    if isinstance(value, Number):
        return value.text.encode()
    if isinstance(value, list):
        return b"[%b]" % b",".join(text(item) for item in value)
    if isinstance(value, dict | Object):
        pairs = (b"%b:%b" % (msgspec.json.encode(k), text(item)) for k, item in members(value))
        return b"{%b}" % b",".join(pairs)
    return msgspec.json.encode(value)


def members(value: dict[str, Any] | Object) -> Iterable[tuple[str, Any]]:
    return value.members if isinstance(value, Object) else value.items()
