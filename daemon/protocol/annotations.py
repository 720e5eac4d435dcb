"""What the fields of request structs say beside their types: how Go names and reads them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Custom:
    """Annotation: a Go type with its own ``UnmarshalJSON``; ``read`` raises ``ValueError``."""

    go: str
    read: Callable[[Any], Any]


@dataclass(frozen=True)
class GoName:
    """Annotation: the Go name of a type, where it does not follow from the Python one."""

    go: str


@dataclass(frozen=True)
class OrText:
    """Annotation: a string may stand for the value, and becomes what ``wrap`` makes of it.

    Go has such a field read by a decoder of its own, so the field is not named in errors; ``null``
    is an empty string to it, and nothing at all is an end that comes too early.
    """

    wrap: Callable[[str], Any]
    missing: str = "unexpected end of JSON input"


@dataclass(frozen=True)
class OrderedMap:
    """Annotation: a map that keeps its keys' order. Its decoder is not Go's own."""

    not_object: str = "Value looks like object, but can't find closing '}' symbol"
