"""Modelfiles: text → commands. No I/O.

The client parses a Modelfile; the server only ever sees the request made of it. The grammar is
Ollama's, character by character: what ends a value, what is dropped, which line an error names.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from lhama.daemon.errors import BadRequest

COMMANDS = (
    "from",
    "license",
    "template",
    "system",
    "adapter",
    "draft",
    "renderer",
    "parser",
    "parameter",
    "message",
    "requires",
)
ROLES = ("system", "user", "assistant")

_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


class ModelfileError(BadRequest):
    """A Modelfile that cannot be read; ``line`` counts from 1, 0 where it is not one line's."""

    def __init__(self, message: str, line: int = 0) -> None:
        super().__init__(f"(line {line}): {message}" if line else message)


@dataclass(frozen=True, slots=True)
class Command:
    """One statement. ``key`` is PARAMETER's name or MESSAGE's role, else empty."""

    name: str
    value: str
    key: str = ""
    line: int = 0


def parse(source: bytes | str) -> tuple[Command, ...]:
    """The commands of a Modelfile in order. Raises ``ModelfileError``."""
    commands = tuple(_Automaton().run(_decode(source)))
    if not any(command.name == "from" for command in commands):
        raise ModelfileError("no FROM line")
    return commands


def _decode(source: bytes | str) -> str:
    if isinstance(source, str):
        return source.removeprefix("\ufeff")
    for mark, encoding in _BOMS:
        if source.startswith(mark):
            return source[len(mark) :].decode(encoding, "replace")
    return source.decode("utf-8", "replace")


class _Place(Enum):
    """Where in the grammar a character stands."""

    BETWEEN = "between statements"
    COMMENT = "in a comment"
    NAME = "in a command's name"
    PARAMETER = "in a parameter's name"
    ROLE = "in a message's role"
    VALUE = "in a value"


class _Automaton:
    """Reads character by character; ``word`` is what has been read since the place changed."""

    def __init__(self) -> None:
        self.place = _Place.BETWEEN
        self.word = ""
        self.name = ""
        self.key = ""
        self.line = 1
        self.begin = 1

    def run(self, text: str) -> Iterator[Command]:
        for character in text:
            # Counted first: an error at a line's end names the next one.
            self.line += character in "\r\n"
            if self.place is _Place.VALUE:
                if (command := self._in_value(character)) is not None:
                    yield command
            else:
                self._outside(character)
        if self.place is _Place.VALUE:
            yield self._command()
        elif self.place not in (_Place.BETWEEN, _Place.COMMENT):
            raise ModelfileError("unexpected EOF")

    def _outside(self, character: str) -> None:
        space, newline = character in " \t", character in "\r\n"
        match self.place:
            case _Place.BETWEEN if character == "#":
                self.place = _Place.COMMENT
            case _Place.BETWEEN if not (space or newline):
                self._move(_Place.NAME)
                self.begin = self.line
                self._keep(character)
            case _Place.COMMENT if newline:
                self.place = _Place.BETWEEN
            case _Place.NAME if space:
                self._end_name()
            case _Place.NAME if not _is_letter(character):
                raise ModelfileError(_expected(), self.line)
            case _Place.PARAMETER | _Place.ROLE if space:
                self._end_key()
            case _Place.PARAMETER if not (_is_letter(character) or character in "0123456789_"):
                raise ModelfileError(f"unexpected EOF: {self.word}")
            case _Place.ROLE if not _is_letter(character):
                raise ModelfileError(f"unexpected EOF: {self.word}")
            case _Place.NAME | _Place.PARAMETER | _Place.ROLE:
                self._keep(character)

    def _end_name(self) -> None:
        self.name, self.key = self.word.lower(), ""
        if self.name not in COMMANDS:
            raise ModelfileError(_expected(), self.line)
        keyed = {"parameter": _Place.PARAMETER, "message": _Place.ROLE}
        self._move(keyed.get(self.name, _Place.VALUE))

    def _end_key(self) -> None:
        self.key = self.word
        if self.place is _Place.ROLE and self.key not in ROLES:
            raise ModelfileError(
                'message role must be one of "system", "user", or "assistant"', self.line
            )
        self._move(_Place.VALUE)

    def _in_value(self, character: str) -> Command | None:
        """Take a character in; at the end of a line, unless a quote is open, the value is whole."""
        if character in "\r\n" and _unquote(self.word) is not None:
            command = self._command()
            self._move(_Place.BETWEEN)
            return command
        if character in "\r\n\t":
            self.word += character
        else:
            self._keep(character)
        return None

    def _command(self) -> Command:
        value = _unquote(self.word)
        if value is None:
            raise ModelfileError("unexpected EOF")
        return Command(self.name, value, self.key, self.begin)

    def _move(self, place: _Place) -> None:
        self.place, self.word = place, ""

    def _keep(self, character: str) -> None:
        if character.isprintable():
            self.word += character


def _is_letter(character: str) -> bool:
    return character.isascii() and character.isalpha()


def _expected() -> str:
    names = ", ".join(f'"{name}"' for name in COMMANDS[:-1])
    return f'command must be one of {names}, or "{COMMANDS[-1]}"'


def _unquote(word: str) -> str | None:
    """The text between the quotes; ``None`` while a quote is open."""
    word = word.strip()
    for quote in ('"""', '"'):
        if word.startswith(quote):
            closed = len(word) >= 2 * len(quote) and word.endswith(quote)
            return word[len(quote) : -len(quote)] if closed else None
    return word
