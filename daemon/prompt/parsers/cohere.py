"""Cohere's North and Command A (2026): blocks of thinking, text and actions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from lhama.daemon.prompt.gotext import SPACE
from lhama.daemon.prompt.parsers import jsonread
from lhama.daemon.prompt.parsers.machine import Machine
from lhama.daemon.prompt.parsers.objects import Objects
from lhama.daemon.prompt.parsers.parser import ParseError, Request
from lhama.daemon.prompt.parsers.tags import Tags
from lhama.daemon.wire.messages import ToolCall

_THINKING, _THINKING_END = "<|START_THINKING|>", "<|END_THINKING|>"
_TEXT, _TEXT_END = "<|START_TEXT|>", "<|END_TEXT|>"
_RESPONSE, _RESPONSE_END = "<|START_RESPONSE|>", "<|END_RESPONSE|>"
_ACTION, _ACTION_END = "<|START_ACTION|>", "<|END_ACTION|>"
_TURN_END = "<|END_OF_TURN_TOKEN|>"
_BETWEEN = (_TEXT, _RESPONSE, _ACTION, _THINKING, _TURN_END)
_IN_CONTENT = Tags(_TEXT_END, _RESPONSE_END, _TURN_END)
_IN_THINKING, _IN_ACTION = Tags(_THINKING_END), Tags(_ACTION_END)


class Cohere(Machine):
    """Thinks unless told not to. Text without a block is content."""

    tags = (
        _THINKING,
        _THINKING_END,
        _TEXT,
        _TEXT_END,
        _ACTION,
        _ACTION_END,
        _RESPONSE,
        _RESPONSE_END,
    )

    def __init__(self, request: Request) -> None:
        super().__init__(request)
        if not request.continues_text:
            thinks = request.think is None or request.think
            self._go(self._in_thinking if thinks else self._between, eat_space=not thinks)

    def _in_thinking(self) -> bool:
        return self._think_until(_IN_THINKING, self._between)

    def _between(self) -> bool:
        """Between blocks."""
        states = {_ACTION: self._in_action, _THINKING: self._in_thinking, _TURN_END: self._between}
        for tag in _BETWEEN:
            if self._held.startswith(tag):
                self._held = self._held[len(tag) :]
                self._go(states.get(tag, self._in_content), eat_space=tag == _TURN_END)
                return True
        if any(tag.startswith(self._held) for tag in _BETWEEN) and not self._at_end:
            return False
        self._go(self._in_content)
        return True

    def _in_content(self) -> bool:
        text, tag = self._text(_IN_CONTENT, trim=False)
        self._content += text
        if tag:
            self._go(self._between, eat_space=True)
        return bool(tag)

    def _in_action(self) -> bool:
        text, tag = self._upto(_IN_ACTION)
        if not tag and self._at_end:
            text = self._rest()
        self._calls += self._read(text)
        if tag:
            self._go(self._between, eat_space=True)
        return bool(tag)

    def _read(self, text: str) -> Iterable[ToolCall]:
        """A list of calls; where it is broken, those of its objects that are not."""
        try:
            read = jsonread.value(text) if text.strip(SPACE) else []
            actions = [_action(item) for item in read] if isinstance(read, list) else []
        except ParseError:
            actions = []
            for start, end in Objects().feed(text):
                try:
                    actions.append(_action(jsonread.value(text[start:end])))
                except ParseError:
                    continue
        return [self.call(name, arguments) for name, arguments in actions]


def _action(read: Any) -> tuple[str, dict[str, Any]]:
    name = jsonread.member(read, "tool_name") if isinstance(read, dict) else None
    if not isinstance(name, str):
        raise ParseError("an action without a tool's name")
    return name, jsonread.as_arguments(jsonread.member(read, "parameters"))
