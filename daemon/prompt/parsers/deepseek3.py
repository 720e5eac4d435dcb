"""DeepSeek V3 and V3.1, and Cogito, which calls with its tokens."""

from __future__ import annotations

from typing import ClassVar

from lhama.daemon.prompt.gotext import SPACE
from lhama.daemon.prompt.parsers import jsonread
from lhama.daemon.prompt.parsers.machine import Machine
from lhama.daemon.prompt.parsers.parser import ParseError, Request
from lhama.daemon.prompt.parsers.tags import Tags
from lhama.daemon.wire.messages import ToolCall

_THOUGHT = "</think>"
_CALLS, _CALLS_END = "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"
_CALL, _CALL_END = "<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>"
_SEPARATOR = "<｜tool▁sep｜>"
_OUTPUTS, _OUTPUTS_END = "<｜tool▁outputs▁begin｜>", "<｜tool▁outputs▁end｜>"
_OUTPUT, _OUTPUT_END = "<｜tool▁output▁begin｜>", "<｜tool▁output▁end｜>"
_IN_THINKING = Tags(_THOUGHT)
_IN_CALLS = Tags(_CALL_END, _CALLS_END)
_IN_OUTPUT, _IN_OUTPUTS = Tags(_OUTPUT_END), Tags(_OUTPUTS_END)


class DeepSeek3(Machine):
    """Thinks only when asked to. A call with broken arguments is dropped."""

    tags: ClassVar[tuple[str, ...]] = (
        _THOUGHT,
        _CALLS,
        _CALLS_END,
        _CALL,
        _CALL_END,
        _SEPARATOR,
        _OUTPUT,
        _OUTPUT_END,
    )
    _ends = Tags(_CALLS, _OUTPUT)

    def __init__(self, request: Request) -> None:
        super().__init__(request)
        if request.think and not request.continues_text:
            self._state = self._in_thinking

    def _in_thinking(self) -> bool:
        return self._think_until(_IN_THINKING, self._in_content)

    def _in_content(self) -> bool:
        before = self._held
        text, tag = self._text(self._ends, trim_end=False)
        if tag == _OUTPUT:
            text = before[: before.index(tag)]  # what tools answered keeps its white space
        self._content += text
        if tag:
            self._go(self._in_calls if tag == _CALLS else self._in_output)
        return bool(tag)

    def _in_calls(self) -> bool:
        text, tag = self._upto(_IN_CALLS)
        if tag == _CALLS_END:
            self._go(self._in_content, eat_space=True)
            return True
        if not tag and self._at_end:
            text = self._rest()
        if text:
            self._add(text.partition(_CALL)[2])
        return bool(tag)

    def _add(self, text: str) -> None:
        try:
            self._calls.append(self._read(text))
        except ParseError:
            return

    def _in_output(self) -> bool:
        """What a tool answered, written by the model: content too."""
        text, tag = self._upto(_IN_OUTPUT)
        self._content += text
        if tag:
            self._go(self._in_content)
        return bool(tag)

    def _read(self, text: str) -> ToolCall:
        name, separator, arguments = text.partition(_SEPARATOR)
        if not separator:
            raise ParseError("a call without arguments")
        return self.call(name.strip(SPACE), jsonread.arguments(arguments.strip(SPACE)))


class Cogito(DeepSeek3):
    """``function<sep>name`` and fenced JSON; does not think where there are tools."""

    tags = (*DeepSeek3.tags, _OUTPUTS, _OUTPUTS_END)
    _ends = Tags(_CALLS, _OUTPUTS)

    def __init__(self, request: Request) -> None:
        super().__init__(request)
        if request.tools:
            self._state = self._in_content

    def _in_output(self) -> bool:
        """What tools answered, written by the model, is dropped."""
        _, tag = self._upto(_IN_OUTPUTS)
        if tag:
            self._go(self._in_content, eat_space=True)
        return bool(tag)

    def _read(self, text: str) -> ToolCall:
        name, fence, fenced = text.partition(_SEPARATOR)[2].partition("\n```json\n")
        arguments, closed, _ = fenced.partition("\n```")
        if not (fence and closed):
            raise ParseError("a call without arguments")
        return self.call(name.strip(SPACE), jsonread.arguments(arguments))
