"""Poolside's Laguna: calls in tags, in pairs or in JSON, and in places where none should be."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from lhama.daemon.prompt.gotext import SPACE
from lhama.daemon.prompt.parsers import jsonread, typed
from lhama.daemon.prompt.parsers.objects import Objects
from lhama.daemon.prompt.parsers.parser import ParseError, Request
from lhama.daemon.prompt.parsers.tagged import Tagged
from lhama.daemon.prompt.parsers.tags import Tags
from lhama.daemon.wire.messages import ToolCall

_THINK, _THOUGHT = "<think>", "</think>"
_CALL, _CALL_END = "<tool_call>", "</tool_call>"
_USER, _USER_END = "<user>", "</user>"
_KEY, _VALUE = "<arg_key>", "<arg_value>"
_PAIR = re.compile(r"<arg_key>(.*?)</arg_key>\s*<arg_value>(.*?)</arg_value>", re.DOTALL)
_ALIASES = {
    "read_file": "read",
    "write_file": "write",
    "edit_file": "edit",
    "web_fetch": "webfetch",
}
_IN_CONTENT = Tags(_THINK, _THOUGHT, _CALL)
_IN_CONTENT_WITH_TOOLS = Tags(_THINK, _THOUGHT, _CALL, _USER, "{")
_IN_USER = Tags(_USER_END)


class Laguna(Tagged):
    """Thinks only when asked to; thoughts that were not asked for are dropped. With tools, a call
    may also stand between ``<user>`` tags or as bare JSON."""

    tags = (
        _THINK,
        _THOUGHT,
        _CALL,
        _CALL_END,
        _USER,
        _USER_END,
        _KEY,
        "</arg_key>",
        _VALUE,
        "</arg_value>",
    )
    space_begins_thinking = False

    def __init__(self, request: Request) -> None:
        super().__init__(request)
        self._thinks = bool(request.think)
        continues = request.last is not None and request.last.role == "assistant"
        if self._thinks and not continues:
            self._state = self._at_start
        else:
            self._eats_space = True
        self._space = ""
        """Before what may be a call."""
        self._ends = _IN_CONTENT_WITH_TOOLS if request.tools else _IN_CONTENT

    def _in_thinking(self) -> bool:
        again = super()._in_thinking()
        if not self._thinks:
            self._thinking = ""
        return again

    def _in_content(self) -> bool:
        held = self._held
        text, tag = self._text(self._ends)
        self._content += text
        self._space = held[len(text) : held.find(tag, len(text))]
        if tag == "{":
            self._held = tag + self._held
            self._objects = Objects()
            self._go(self._in_object)
        elif tag:
            states = {_THINK: self._in_thinking, _CALL: self._in_call, _USER: self._in_user}
            self._go(states.get(tag, self._in_content), eat_space=tag != _USER)
        return bool(tag)

    def _in_user(self) -> bool:
        """Between tags that a call must not stand between."""
        text, tag = self._upto(_IN_USER)
        if not tag and not self._at_end:
            return False
        text = text if tag else self._rest()
        try:
            name, _ = _parts(_bare(text))
            if not tag or self._resolved(name) is None:
                raise ParseError("no call")
            self._calls += self._read(text)
            self._go(self._in_content, eat_space=True)
        except ParseError:
            self._content += f"{self._space}{_USER}{text}{tag}"
            self._go(self._in_content)
        return True

    def _in_object(self) -> bool:
        """An object that stands in the text: a call, if a tool has its name."""
        first = self._held[1:].lstrip(SPACE)[:1]
        if first and first != '"':
            self._content += self._space + self._held[0]
            self._held = self._held[1:]
            self._go(self._in_content)
            return True
        found = self._objects.feed(self._held[self._searched :], self._searched)
        self._searched = len(self._held)
        if not found and not self._at_end:
            return False
        end = found[0][1] if found else len(self._held)
        text, self._held = self._held[:end], self._held[end:]
        try:
            name, _ = _named(text)
            if self._resolved(name) is None:
                raise ParseError("no call")
            self._calls += self._read(text)
            self._go(self._in_content, eat_space=True)
        except ParseError:
            self._content += self._space + text
            self._go(self._in_content)
        return True

    def _cut_off(self, text: str) -> None:
        if text.strip(SPACE):
            self._calls += self._read(text)

    def _read(self, text: str) -> Iterable[ToolCall]:
        text = _bare(text)
        if text.startswith("{"):
            name, arguments = _named(text)
            if not name:
                raise ParseError("empty Laguna tool call name")
            return [self.call(self._resolved(name) or name, arguments)]
        name, rest = _parts(text)
        name = self._resolved(name) or name
        if not rest.startswith("{"):
            return [self.call(name, self._pairs(name, rest))]
        try:
            return [self.call(name, jsonread.arguments(rest))]
        except ParseError as error:
            problem = f"failed to parse Laguna JSON tool call arguments: {error.message}"
            raise ParseError(problem) from None

    def _pairs(self, name: str, text: str) -> dict[str, Any]:
        tool = self.request.tool(name)
        pairs = ((key.strip(SPACE), value) for key, value in _PAIR.findall(text))
        return {
            key: typed.from_lines(value, tool.types(key) if tool else ()) for key, value in pairs
        }

    def _resolved(self, name: str) -> str | None:
        """The declared tool that ``name`` means."""
        for known in (name, _ALIASES.get(name, name)):
            if self.request.tool(known):
                return known
        return None


class Poolside(Laguna):
    """The prompt of ``poolside-v1`` closes a last answer instead of leaving it open."""

    def __init__(self, request: Request) -> None:
        super().__init__(Request(request.tools, request.think, None, request.rng))


def _bare(text: str) -> str:
    """One call's text without tags around it, however many there are."""
    text = text.strip(SPACE)
    while text.startswith(_CALL):
        text = text[len(_CALL) :].strip(SPACE)
    return text.partition(_CALL_END)[0].partition(_CALL)[0].strip(SPACE)


def _parts(text: str) -> tuple[str, str]:
    """A call's name and what follows it."""
    if text.startswith("{"):
        return _named(text)[0], ""
    places = [place for place in (text.find(_KEY), text.find("{")) if place >= 0]
    end = text.find(_KEY) if _KEY in text else places[0] if places else len(text)
    return text[:end].strip(SPACE), text[end:].strip(SPACE)


def _named(text: str) -> tuple[str, dict[str, Any]]:
    try:
        name, arguments = jsonread.named_call(text, "struct", ".name")
    except ParseError as error:
        raise ParseError(f"failed to parse Laguna JSON tool call: {error.message}") from None
    return name, arguments
