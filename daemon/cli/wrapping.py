"""Lines of an answer broken between words, while it streams to a terminal."""

from __future__ import annotations

import os
import sys
import unicodedata

from lhama.daemon.cli import output

NARROWEST = 20
"""Columns below which lines are left to the terminal."""

TAB = 8


class Wrapper:
    """Breaks lines before the word that does not fit.

    A word is shown as far as it is known; if it grows beyond the edge, it is taken back and written
    on the next line. Words longer than a line are left to the terminal, and so is the last column: a
    cursor behind it is not where it seems to be.
    """

    def __init__(self, columns: int) -> None:
        self._columns = columns
        self._column = 0
        self._word = ""
        """What the line ends with, if that may go on."""

    def __call__(self, text: str) -> str:
        """What to write for the next piece of text."""
        return "".join(map(self._written, text))

    def _written(self, character: str) -> str:
        if character == "\n":
            self._column, self._word = 0, ""
            return character
        cells = TAB - self._column % TAB if character == "\t" else _cells(character)
        full = self._column + cells >= self._columns
        if full and character.isspace():
            return self._written("\n")
        begun = self._break() if full else ""
        self._column += cells
        if self._column > self._columns:  # the terminal has broken a long word
            self._column = cells
        joins = cells < 2 and not character.isspace()  # between wide characters any place will do
        self._word = self._word + character if joins else ""
        return begun + character

    def _break(self) -> str:
        word = self._word
        width = sum(map(_cells, word))
        if width >= self._column > 0:
            return ""
        self._column = width
        return f"\x1b[{width}D\x1b[K\n{word}" if word else "\n"


def terminal() -> Wrapper | None:
    """For standard output; ``None`` where it is no terminal, or too narrow for words."""
    if not output.obeys(sys.stdout):
        return None
    try:
        columns = os.get_terminal_size(sys.stdout.fileno()).columns
    except (OSError, ValueError):
        return None
    return Wrapper(columns) if columns >= NARROWEST else None


def _cells(character: str) -> int:
    """Columns of a terminal that a character takes."""
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1
