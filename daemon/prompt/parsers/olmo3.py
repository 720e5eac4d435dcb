"""Olmo 3: calls as Python would write them, one a line; and the thinking models, which only think."""

from __future__ import annotations

import re
from typing import Any

from lhama.daemon.prompt.gotext import SPACE
from lhama.daemon.prompt.parsers import commas, literal
from lhama.daemon.prompt.parsers.machine import Machine
from lhama.daemon.prompt.parsers.parser import ParseError, Request
from lhama.daemon.prompt.parsers.tags import Tags
from lhama.daemon.wire.messages import ToolCall

_CALLS, _CALLS_END = "<function_calls>", "</function_calls>"
_THOUGHT = "</think>"
_IN_CONTENT, _IN_CALLS, _IN_THINKING = Tags(_CALLS), Tags(_CALLS_END), Tags(_THOUGHT)
_CALL = re.compile(r"([0-9A-Za-z_]+)\((.*)\)")
_ESCAPE = re.compile(r"\\([\\\"'ntr])")
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r"}


class Olmo3(Machine):
    """Calls are dropped together if one of them is broken."""

    thinking = False
    tags = (_CALLS, _CALLS_END)

    def _in_content(self) -> bool:
        return self._speak_until(_IN_CONTENT, self._in_calls, trim=False)

    def _in_calls(self) -> bool:
        text, tag = self._upto(_IN_CALLS)
        if not tag and self._at_end:
            text = self._rest()
        try:
            self._calls += [self._read(line) for line in text.split("\n") if line.strip(SPACE)]
        except ParseError:
            pass
        if tag:
            self._go(self._in_content)
        return bool(tag)

    def _read(self, line: str) -> ToolCall:
        found = _CALL.fullmatch(line.strip(SPACE))
        if not found:
            raise ParseError(f"no call: {line}")
        arguments: dict[str, Any] = {}
        for part in commas.split(found.group(2)):
            name, equals, value = part.partition("=")
            if not equals and part.strip(SPACE):
                raise ParseError(f"no argument: {part}")
            if equals:
                arguments[name.strip(SPACE)] = _value(value)
        return self.call(found.group(1), arguments)


class Olmo3Think(Machine):
    tools = False
    tags = (_THOUGHT,)

    def __init__(self, request: Request) -> None:
        super().__init__(request)
        if not request.continues_text:
            self._state = self._in_thinking

    def _in_thinking(self) -> bool:
        return self._think_until(_IN_THINKING, self._in_content)

    def _in_content(self) -> bool:
        self._content += self._rest()
        return False


def _value(text: str) -> Any:
    """A literal of Python or JSON; what is none is a string."""
    text = text.strip(SPACE)
    if len(text) > 1 and text[0] in "\"'" and text[-1] == text[0]:
        return _ESCAPE.sub(lambda found: _ESCAPES.get(found.group(1), found.group(1)), text[1:-1])
    known, value = literal.scalar(text, nulls=("null", "None", "nil"))
    if known:
        return value
    if text.startswith("[") and text.endswith("]"):
        return [_value(part) for part in commas.split(text[1:-1])]
    if text.startswith("{") and text.endswith("}"):
        return dict(_member(part) for part in commas.split(text[1:-1]) if part.strip(SPACE))
    return text


def _member(text: str) -> tuple[str, Any]:
    key, colon, value = text.partition(":")
    if not colon:
        raise ParseError(f"no member: {text}")
    key = key.strip(SPACE)
    quoted = len(key) > 1 and key[0] in "\"'" and key[-1] == key[0]
    return key[1:-1] if quoted else key, _value(value)
