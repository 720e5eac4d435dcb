"""LFM2: calls as Python would write them, in a list."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from lhama.daemon.prompt.gotext import SPACE
from lhama.daemon.prompt.parsers import commas, jsonread, literal
from lhama.daemon.prompt.parsers.parser import ParseError, Request
from lhama.daemon.prompt.parsers.tagged import Tagged
from lhama.daemon.wire.messages import ToolCall


class Lfm2(Tagged):
    """Calls of one list are dropped together if one of them is broken."""

    thinking = False
    tags = ("<think>", "</think>", "<|tool_call_start|>", "<|tool_call_end|>")
    call_open = "<|tool_call_start|>"
    call_close = "<|tool_call_end|>"
    space_ends_content = True

    def _read(self, text: str) -> Iterable[ToolCall]:
        text = text.strip(SPACE)
        if text.startswith("[") and text.endswith("]"):
            text = text[1:-1]
        try:
            read = [_call(part.strip(SPACE)) for part in commas.split(text) if part.strip(SPACE)]
        except ParseError:
            return []
        return [self.call(name, arguments) for name, arguments in read]


class Lfm2Thinking(Lfm2):
    """Where it was asked to, it thinks if it wants to: then thinking is opened."""

    thinking = True

    def __init__(self, request: Request) -> None:
        super().__init__(request)
        if request.think and not request.continues_text:
            self._state = self._perhaps_thinking
            self._eats_space = True


def _call(text: str) -> tuple[str, dict[str, Any]]:
    """Name and arguments of ``name(key=value, …)``. Raises ``ParseError``."""
    name, opened, arguments = text.partition("(")
    if not (opened and name.strip(SPACE) and arguments.endswith(")")):
        raise ParseError(f"no call: {text}")
    return name.strip(SPACE), dict(
        _argument(part) for part in commas.split(arguments[:-1]) if part.strip(SPACE)
    )


def _argument(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not (equals and name.strip(SPACE) and value.strip(SPACE)):
        raise ParseError(f"no argument: {text}")
    return name.strip(SPACE), _value(value.strip(SPACE))


def _value(text: str) -> Any:
    """A literal of Python or JSON; what is none is a string. Escapes stay as they were written."""
    if text[0] in "\"'":
        if len(text) < 2 or text[-1] != text[0]:
            raise ParseError(f"unterminated string: {text}")
        return text[1:-1]
    known, value = literal.scalar(text)
    if known:
        return value
    if text[0] in "[{":
        for written in (text, literal.to_json(text)):
            try:
                return jsonread.value(written)
            except ParseError:
                continue
    return text
