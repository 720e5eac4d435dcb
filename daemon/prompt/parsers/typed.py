"""Arguments that come as plain text, made into what the tool's schema says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lhama.daemon.prompt.parsers import jsonread, literal
from lhama.daemon.prompt.parsers.parser import ParseError


def from_lines(text: str, types: Sequence[str]) -> Any:
    """As ``from_text``, for text that stands on lines of its own."""
    return from_text(text.removeprefix("\n").removesuffix("\n"), types)


def from_text(text: str, types: Sequence[str]) -> Any:
    """The most special of ``types`` that ``text`` is a value of; the text itself if it is none's.

    ``null`` is null whatever the schema says; a boolean that is neither is false.
    """
    if text.lower() == "null":
        return None
    if "boolean" in types:
        if text.lower() in ("true", "false"):
            return text.lower() == "true"
        if len(types) == 1:
            return False
    _, read = literal.number(text)
    if "integer" in types and isinstance(read, int):
        return read
    if "number" in types and read is not None:
        return _whole(read)
    for kind, python in (("array", list), ("object", dict)):
        if kind in types and isinstance(found := _json(text), python):
            return found
    return text


def _whole(number: float) -> int | float:
    """A number without fraction as an integer."""
    fits = -(2.0**63) <= number < 2.0**63
    return int(number) if fits and number == int(number) else number


def _json(text: str) -> Any:
    try:
        return jsonread.value(text)
    except ParseError:
        return None
