"""Arguments as the Gemma models write them: bare keys, strings between a mark of their own."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

from lhama.daemon.prompt.gotext import SPACE
from lhama.daemon.prompt.parsers import jsonread, literal
from lhama.daemon.prompt.parsers.parser import ParseError

_JSON_STRING = re.compile(r'"(?:\\.|[^"\\])*"', re.DOTALL)
_SINGLE_QUOTED = re.compile(r"'((?:\\.|[^'\\])*)'", re.DOTALL)
_WORD = re.compile(r"[^,\]}]*")


class Reader:
    """Reads one object. Models forget marks: what can be nothing else is mended, and only then may
    the closing bracket be missing too."""

    def __init__(
        self, text: str, quote: str, bare: Collection[str], names: Collection[str]
    ) -> None:
        """``quote`` stands before and after a string. An argument in ``bare`` may be text without
        it, which ends before the next of ``names``."""
        self._text = text
        self._quote = quote
        self._bare = bare
        self._next = re.compile(rf",\s*(?:{'|'.join(map(re.escape, names))})\s*:|\Z")
        mark = re.escape(quote)
        self._key = re.compile(rf'\s*(?:{mark}|")?([^\s:{{}}\[\],"]+?)(?:{mark}|")?\s*:')
        self._place = 0
        self._mended = False

    def arguments(self) -> dict[str, Any]:
        """The object that the text is. Raises ``ParseError``."""
        if not self._text.startswith("{"):
            raise ParseError("expected '{' in tool call")
        return self._object(outermost=True)

    def _object(self, *, outermost: bool = False) -> dict[str, Any]:
        read: dict[str, Any] = {}
        self._place += 1
        while not self._closes("}"):
            key = self._key.match(self._text, self._place)
            if not key:
                raise ParseError(f"expected a key at {self._text[self._place :]!r}")
            self._place = key.end()
            name = key.group(1)
            read[name] = self._value(bare=outermost and name in self._bare)
        return read

    def _array(self) -> list[Any]:
        read: list[Any] = []
        self._place += 1
        while not self._closes("]"):
            read.append(self._value())
        return read

    def _closes(self, bracket: str) -> bool:
        """Skip a comma; whether the bracket comes, or the end of a text that was mended."""
        self._skip_space()
        if self._text.startswith(",", self._place):
            self._place += 1
            self._skip_space()
        if self._text.startswith(bracket, self._place):
            self._place += 1
            return True
        if self._place < len(self._text):
            return False
        if not self._mended:
            raise ParseError(f"expected {bracket!r} at the end")
        return True

    def _value(self, *, bare: bool = False) -> Any:
        self._skip_space()
        if self._text.startswith(self._quote, self._place):
            return self._string()
        if self._text.startswith("{", self._place):
            return self._object()
        if self._text.startswith("[", self._place):
            return self._array()
        if string := _JSON_STRING.match(self._text, self._place):
            self._place = string.end()
            return jsonread.value(string.group())
        if string := _SINGLE_QUOTED.match(self._text, self._place):
            self._place, self._mended = string.end(), True
            if self._text.startswith(self._quote, self._place):
                self._place += len(self._quote)
            return string.group(1)
        return self._word(bare=bare)

    def _string(self) -> str:
        start = self._place + len(self._quote)
        end = self._text.find(self._quote, start)
        if end >= 0:
            self._place = end + len(self._quote)
            return self._text[start:end]
        self._mended = True
        end = len(self._text.rstrip(SPACE))
        if self._text[end - 1] in "}]":
            end -= 1
        self._place = end
        return self._text[start:end]

    def _word(self, *, bare: bool) -> Any:
        word = _WORD.match(self._text, self._place)
        assert word is not None, "the pattern matches nothing, too"
        known, value = literal.scalar(word.group().strip(SPACE))
        if known:
            self._place = word.end()
            return value
        if not bare:
            raise ParseError(f"unexpected {word.group()!r}")
        self._mended = True
        end = self._next.search(self._text, self._place)
        assert end is not None, "the pattern matches the end"
        stop = end.start()
        text = self._text[self._place : stop]
        if stop == len(self._text) and text.rstrip(SPACE).endswith("}"):
            text = text.rstrip(SPACE)[:-1]
        self._place += len(text)
        return text

    def _skip_space(self) -> None:
        rest = self._text[self._place :]
        self._place += len(rest) - len(rest.lstrip(SPACE))
