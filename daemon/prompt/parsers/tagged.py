"""What most families do: think up to a tag, speak, and call tools between two tags."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from functools import cache
from typing import ClassVar

from lhama.daemon.prompt.gotext import SPACE
from lhama.daemon.prompt.parsers.machine import Machine
from lhama.daemon.prompt.parsers.parser import ParseError
from lhama.daemon.prompt.parsers.tags import Tags
from lhama.daemon.wire.messages import ToolCall


class Tagged(Machine):
    """Thinking, content and calls, told apart by tags. White space around tags is nobody's.

    A call also ends the thinking; models forget to close it. A call that is not closed counts if
    it is whole.
    """

    think_open: ClassVar[str] = "<think>"
    """Stands in the prompt already; some models repeat it."""
    think_close: ClassVar[str] = "</think>"
    call_open: ClassVar[str] = "<tool_call>"
    call_close: ClassVar[str] = "</tool_call>"
    space_begins_thinking: ClassVar[bool] = True
    """White space before the first thought is part of it."""
    space_ends_content: ClassVar[bool] = False
    """White space at the end of the answer is content."""

    @abstractmethod
    def _read(self, text: str) -> Iterable[ToolCall]:
        """The calls of what stands between the tags. Raises ``ParseError``."""

    def _at_start(self) -> bool:
        """Before the thinking: the tag that opens it may come once more."""
        start = self._held.lstrip(SPACE)
        if start.startswith(self.think_open):
            self._held = start[len(self.think_open) :]
            self._go(self._in_thinking, eat_space=True)
            return True
        if self.think_open.startswith(start) and not self._at_end:
            return False
        self._go(self._in_thinking, eat_space=not self.space_begins_thinking)
        return True

    def _perhaps_thinking(self) -> bool:
        """Before the first tag: thinking must be opened, else all is content."""
        start = self._held.lstrip(SPACE)
        if start.startswith(self.think_open):
            return self._at_start()
        if self.think_open.startswith(start) and not self._at_end:
            return False
        self._go(self._in_content)
        return True

    def _in_thinking(self) -> bool:
        text, tag = self._text(_tags(self.think_close, self.call_open))
        self._thinking += text
        if tag:
            calls = tag == self.call_open
            self._go(self._in_call if calls else self._in_content, eat_space=not calls)
        return bool(tag)

    def _in_content(self) -> bool:
        text, tag = self._text(_tags(self.call_open), trim_end=not self.space_ends_content)
        self._content += text
        if tag:
            self._go(self._in_call)
        return bool(tag)

    def _in_call(self) -> bool:
        text, tag = self._upto(_tags(self.call_close))
        if tag:
            self._calls += self._read(text)
            self._go(self._in_content, eat_space=True)
            return True
        if self._at_end:
            self._cut_off(self._rest())
        return False

    def _cut_off(self, text: str) -> None:
        """The answer ended inside a call."""
        try:
            self._calls += self._read(text)
        except ParseError:
            return


@cache
def _tags(*tags: str) -> Tags:
    return Tags(*tags)
