"""GLM-4.7 and GLM-OCR: calls as pairs of keys and values."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import zip_longest

from lhama.daemon.durations import quote
from lhama.daemon.prompt.gotext import SPACE
from lhama.daemon.prompt.parsers import typed
from lhama.daemon.prompt.parsers.parser import ParseError, Request
from lhama.daemon.prompt.parsers.tagged import Tagged
from lhama.daemon.wire.messages import ToolCall

_KEY, _KEY_END, _VALUE, _VALUE_END = "<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>"
_CYCLE = (_KEY, _KEY_END, _VALUE, _VALUE_END)
_TAG = re.compile(f"({'|'.join(_CYCLE)})")
_IS_KEY, _IS_VALUE = 0, 1
_NAME_AND_KEY = re.compile(rf"([^{SPACE}]*)[{SPACE}]+(.*)", re.DOTALL)

Pairs = list[tuple[str, str]]


class Glm47(Tagged):
    """Thinks unless told not to; then thinking has to be opened."""

    tags = ("<think>", "</think>", "<tool_call>", "</tool_call>", *_CYCLE)

    def __init__(self, request: Request) -> None:
        super().__init__(request)
        thinks = request.think is None or request.think
        self._state = self._in_thinking if thinks else self._perhaps_thinking

    def _read(self, text: str) -> Iterable[ToolCall]:
        name, pairs = _pairs(text)
        if not name:
            raise ParseError("empty function name")
        tool = self.request.tool(name)
        arguments = {
            key: typed.from_lines(value, tool.types(key) if tool else ()) for key, value in pairs
        }
        return [self.call(name, arguments)]

    def _cut_off(self, text: str) -> None:
        """Only the call's own closing tag may be missing: half an argument must not be acted on."""
        for length in range(len(self.call_close) - 1, 0, -1):
            if text.endswith(self.call_close[:length]):
                text = text[:-length].rstrip(SPACE)
                break
        if problem := self._incomplete(text):
            raise ParseError(f"incomplete GLM tool call: {problem}")
        self._calls += self._read(text)

    def _incomplete(self, text: str) -> str:
        found = _TAG.findall(text)
        if found and found[-1] in (_KEY, _VALUE):
            line = text.count("\n") + 1
            return f"XML syntax error on line {line}: element {found[-1]} closed by </tool_call>"
        keys, values = found.count(_KEY), found.count(_VALUE)
        if keys != values:
            return f"mismatched arg_key and arg_value counts: {keys} keys, {values} values"
        name, pairs = _pairs(text)
        tool = self.request.tool(name)
        if not name:
            return "empty function name"
        if tool is None:
            return f"tool {quote(name)} is not declared"
        given = {key for key, _ in pairs}
        if "" in given:
            return "empty argument name"
        missing = next((key for key in tool.required if key not in given), None)
        if missing is None:
            return ""
        return f"required argument {quote(missing)} is missing for tool {quote(name)}"


class GlmOcr(Glm47):
    thinking = False

    def __init__(self, request: Request) -> None:
        super().__init__(request)
        self._state = self._perhaps_thinking


def _pairs(text: str) -> tuple[str, Pairs]:
    """The function's name, and keys and values in their order.

    Models leave tags out. A text then goes where the tags around it say; what was skipped is empty.
    """
    name, *pieces = _TAG.split(text)
    slots = _Slots()
    expected, before = 0, ""
    inner = _NAME_AND_KEY.fullmatch(name) if pieces and pieces[0] != _KEY else None
    if inner:
        name, key = inner.groups()
        slots.put(key, _IS_KEY)
        expected = 2
        if pieces[0] == _KEY_END:
            before, *pieces = pieces[1:]
    for tag, after in zip(pieces[::2], pieces[1::2], strict=True):
        found = _CYCLE.index(tag)
        slots.put_between(before, expected, found)
        expected, before = (found + 1) % len(_CYCLE), after
    if expected % 2:
        slots.put(before, expected // 2)
    return name.strip(SPACE), slots.pairs()


class _Slots:
    """Keys and values by turns."""

    def __init__(self) -> None:
        self._texts: list[str] = []

    def put(self, text: str, kind: int) -> None:
        if len(self._texts) % 2 != kind:
            self._texts.append("")
        self._texts.append(text)

    def put_between(self, text: str, expected: int, found: int) -> None:
        """A text before the tag ``found`` of the cycle, where ``expected`` should have come."""
        if expected % 2 == 0:  # an opening tag: the text is inside, if that was left out
            if text and found != expected:
                self.put(text, expected // 2)
        elif found == expected:
            self.put(text, expected // 2)
        else:
            self.put(text, _IS_VALUE if found in (0, 3) else _IS_KEY)
        if found % 2 and len(self._texts) % 2 == found // 2:
            self.put("", found // 2)

    def pairs(self) -> Pairs:
        pairs = zip_longest(self._texts[::2], self._texts[1::2], fillvalue="")
        return [(key.strip(SPACE), value) for key, value in pairs]
