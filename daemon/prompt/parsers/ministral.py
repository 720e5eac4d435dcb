"""Ministral: ``[TOOL_CALLS]name[ARGS]{…}``, thinking between ``[THINK]`` and ``[/THINK]``."""

from __future__ import annotations

from lhama.daemon.prompt.parsers import jsonread
from lhama.daemon.prompt.parsers.machine import Machine
from lhama.daemon.prompt.parsers.objects import Objects
from lhama.daemon.prompt.parsers.parser import ParseError
from lhama.daemon.prompt.parsers.tags import Tags

_CALL, _ARGUMENTS = "[TOOL_CALLS]", "[ARGS]"
_THINK, _THOUGHT = "[THINK]", "[/THINK]"
_IN_CONTENT = Tags(_CALL, _THINK)
_IN_THINKING = Tags(_THOUGHT)
_IN_NAME = Tags(_ARGUMENTS)


class Ministral(Machine):
    thinking = False
    tags = (_CALL, _THINK, _THOUGHT, _ARGUMENTS)

    def _in_content(self) -> bool:
        text, tag = self._text(_IN_CONTENT)
        self._content += text
        if tag:
            self._go(self._in_name if tag == _CALL else self._in_thinking)
        return bool(tag)

    def _in_thinking(self) -> bool:
        return self._think_until(_IN_THINKING, self._in_content, trim=False)

    def _in_name(self) -> bool:
        self._name, tag = self._upto(_IN_NAME)
        if not tag:
            return False
        self._objects = Objects()
        self._go(self._in_arguments)
        return True

    def _in_arguments(self) -> bool:
        found = self._objects.feed(self._held[self._searched :], self._searched)
        self._searched = len(self._held)
        if not found:
            return False
        end = found[0][1]
        text, self._held = self._held[:end], self._held[end:]
        if self.request.tool(self._name) is None:
            raise ParseError(f"tool '{self._name}' not found")
        self._calls.append(self.call(self._name, jsonread.arguments(text)))
        self._go(self._in_content)
        return True
