"""Finds outermost JSON objects in text that comes in pieces."""

from __future__ import annotations

import re

_OUTSIDE = re.compile(r"[{\[\]]").search
_INSIDE = re.compile(r'[{}"]').search
_IN_STRING = re.compile(r'["\\]').search


class Objects:
    """Looks at each character once, and at most of them in C."""

    def __init__(self) -> None:
        self._start = -1
        self._depth = 0
        self._brackets = 0
        self._in_string = False
        self._escaped = False
        self.closed = False
        """An array that was opened outside all objects is closed again."""

    def feed(self, text: str, offset: int = 0) -> list[tuple[int, int]]:
        """Start and end of the objects that end in ``text``, which begins at ``offset``."""
        found: list[tuple[int, int]] = []
        place = 0
        if self._escaped and text:
            self._escaped, place = False, 1
        while mark := self._next(text, place):
            letter, place = mark.group(), mark.end()
            if letter == "\\":
                self._escaped = place == len(text)
                place += 1
            elif letter == '"':
                self._in_string = not self._in_string
            elif letter == "{":
                if self._depth == 0:
                    self._start = offset + place - 1
                self._depth += 1
            elif letter == "}":
                self._depth -= 1
                if self._depth == 0:
                    found.append((self._start, offset + place))
            else:
                self._brackets += 1 if letter == "[" else -1
                self.closed = self._brackets == 0
        return found

    def moved(self, by: int) -> None:
        """The first ``by`` characters of the text are gone."""
        self._start -= by

    def _next(self, text: str, place: int) -> re.Match[str] | None:
        if self._in_string:
            return _IN_STRING(text, place)
        return (_INSIDE if self._depth else _OUTSIDE)(text, place)
