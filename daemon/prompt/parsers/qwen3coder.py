"""Qwen3-Coder, and the families that call as it does: Qwen3.5, Ornith, Nemotron 3."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import ClassVar

from lhama.daemon.prompt.parsers import typed
from lhama.daemon.prompt.parsers.parser import ParseError, Request
from lhama.daemon.prompt.parsers.tagged import Tagged
from lhama.daemon.wire.messages import ToolCall

_ELEMENT = re.compile(r"<(function|parameter)=([^>]+)>|</(function|parameter)>")


class Qwen3Coder(Tagged):
    thinking = False
    tags: ClassVar[tuple[str, ...]] = ("<tool_call>", "</tool_call>")

    def _read(self, text: str) -> Iterable[ToolCall]:
        name, parameters = _function(text)
        tool = self.request.tool(name)
        arguments = {
            key: typed.from_lines(value, tool.types(key) if tool else ())
            for key, value in parameters
        }
        return [self.call(name, arguments)]


class Qwen35(Qwen3Coder):
    """Thinks unless told not to."""

    thinking = True
    tags = ("<think>", "</think>", "<tool_call>", "</tool_call>")

    def __init__(self, request: Request) -> None:
        super().__init__(request)
        if (request.think is None or request.think) and not request.continues_text:
            self._state = self._at_start


class Nemotron3(Qwen35):
    space_begins_thinking = False


def _function(text: str) -> tuple[str, list[tuple[str, str]]]:
    """The function's name and its parameters' names and texts.

    ``<function=name><parameter=key>value</parameter>…</function>``; values are not escaped.
    Raises ``ParseError`` with the words of Go's ``encoding/xml``.
    """
    name = ""
    parameters: list[tuple[str, str]] = []
    open_: list[str] = []
    begun = 0
    for found in _ELEMENT.finditer(text):
        opened, value, closed = found.groups()
        if opened:
            if not open_ and opened != "function":
                raise ParseError(f"expected element type <function> but have <{opened}>")
            if opened == "function" and not open_:
                name = value
            elif len(open_) == 1 and opened == "parameter":
                parameters.append((value, ""))
                begun = found.end()
            open_.append(opened)
            continue
        if not open_ or open_[-1] != closed:
            raise ParseError(_misplaced(text[: found.end()], open_, closed))
        open_.pop()
        if len(open_) == 1 and closed == "parameter":
            parameters[-1] = parameters[-1][0], text[begun : found.start()]
        if not open_:
            return name, parameters
    raise ParseError(f"XML syntax error on line {_line(text)}: unexpected EOF" if open_ else "EOF")


def _misplaced(before: str, open_: list[str], closed: str) -> str:
    problem = (
        f"element <{open_[-1]}> closed by </{closed}>"
        if open_
        else f"unexpected end element </{closed}>"
    )
    return f"XML syntax error on line {_line(before)}: {problem}"


def _line(before: str) -> int:
    return before.count("\n") + 1
