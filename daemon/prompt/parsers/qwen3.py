"""Qwen3 and Qwen3-VL: calls in JSON."""

from __future__ import annotations

from collections.abc import Iterable

from lhama.daemon.prompt.parsers import jsonread
from lhama.daemon.prompt.parsers.parser import ParseError, Request
from lhama.daemon.prompt.parsers.tagged import Tagged
from lhama.daemon.wire.messages import ToolCall

_CALL_TYPE = (
    'struct { Name string "json:\\"name\\""; '
    'Arguments api.ToolCallFunctionArguments "json:\\"arguments\\"" }'
)


class Qwen3(Tagged):
    thinking = False
    tags = ("<think>", "</think>", "<tool_call>", "</tool_call>")

    def _read(self, text: str) -> Iterable[ToolCall]:
        try:
            name, arguments = jsonread.named_call(text, _CALL_TYPE, ".name")
        except ParseError as error:
            raise ParseError(f"failed to parse JSON: {error.message}") from None
        if not name:
            raise ParseError("empty function name")
        return [self.call(name, arguments)]


class Qwen3Thinking(Qwen3):
    thinking = True

    def __init__(self, request: Request) -> None:
        super().__init__(request)
        if request.think is None or request.think:
            self._state = self._at_start


class Qwen3VL(Tagged):
    thinking = False
    tags = ("</think>", "<tool_call>", "</tool_call>")

    def _read(self, text: str) -> Iterable[ToolCall]:
        return [
            self.call(*jsonread.named_call(text, "api.ToolCallFunction", "ToolCallFunction.name"))
        ]


class Qwen3VLThinking(Qwen3VL):
    thinking = True

    def __init__(self, request: Request) -> None:
        super().__init__(request)
        if (request.think is None or request.think) and not request.continues_text:
            self._state = self._in_thinking
