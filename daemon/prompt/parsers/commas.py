"""Splits lists of arguments at their commas."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cache

_OPENING, _CLOSING = "([{", ")]}"


def split(text: str, quotes: Sequence[str] = ("'", '"')) -> list[str]:
    """The parts of ``text`` between commas that stand in no brackets and in no quotes; none of
    them empty. Inside ``'`` and ``"``, a backslash takes the next character with it."""
    parts: list[str] = []
    start = depth = 0
    for place, mark in _marks(text, tuple(quotes)):
        if mark in _OPENING:
            depth += 1
        elif mark in _CLOSING:
            depth -= 1
        elif depth == 0:
            parts.append(text[start:place])
            start = place + 1
    return [part for part in (*parts, text[start:]) if part]


def _marks(text: str, quotes: tuple[str, ...]) -> Iterator[tuple[int, str]]:
    """Places and characters of commas and brackets outside quotes."""
    for found in _pattern(quotes).finditer(text):
        if found.lastgroup:
            yield found.start(), found.group()


@cache
def _pattern(quotes: tuple[str, ...]) -> re.Pattern[str]:
    quoted = []
    for quote in map(re.escape, quotes):
        inner = rf"\\.|(?!{quote})." if len(quote) <= 2 else rf"(?!{quote})."
        quoted.append(rf"{quote}(?:{inner})*(?:{quote}|\Z)")
    return re.compile(rf"{'|'.join(quoted)}|(?P<mark>[,(\[{{)\]}}])", re.DOTALL)
