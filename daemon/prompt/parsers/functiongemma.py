"""FunctionGemma: ``call:name{key:value,…}``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from lhama.daemon.prompt.gotext import SPACE
from lhama.daemon.prompt.parsers import commas, literal
from lhama.daemon.prompt.parsers.machine import Machine
from lhama.daemon.prompt.parsers.tags import Tags
from lhama.daemon.wire.messages import ToolCall

_CALL, _CALL_END = "<start_function_call>", "<end_function_call>"
_QUOTE = "<escape>"
_IN_CONTENT, _IN_CALL = Tags(_CALL), Tags(_CALL_END)


class FunctionGemma(Machine):
    """What is no call is dropped."""

    thinking = False
    tags = (_CALL, _CALL_END)

    def _in_content(self) -> bool:
        return self._speak_until(_IN_CONTENT, self._in_call, trim=False)

    def _in_call(self) -> bool:
        text, tag = self._upto(_IN_CALL)
        if not tag and self._at_end:
            text = self._rest()
        self._calls += self._read(text)
        if tag:
            self._go(self._in_content)
        return bool(tag)

    def _read(self, text: str) -> Iterable[ToolCall]:
        name, opened, arguments = text.partition("call:")[2].partition("{")
        body, closed, _ = arguments.rpartition("}")
        return [self.call(name, _members(body))] if opened and closed else []


def _members(text: str) -> dict[str, Any]:
    pairs = (part.partition(":") for part in commas.split(text, quotes=(_QUOTE,)))
    return {key.strip(SPACE): _value(value.strip(SPACE)) for key, colon, value in pairs if colon}


def _value(text: str) -> Any:
    """What is nothing else is a string."""
    if len(text) >= 2 * len(_QUOTE) and text.startswith(_QUOTE) and text.endswith(_QUOTE):
        return text.removeprefix(_QUOTE).removesuffix(_QUOTE)
    known, value = literal.scalar(text, nulls=())
    if known:
        return value
    if text.startswith("[") and text.endswith("]"):
        return [_value(part.strip(SPACE)) for part in commas.split(text[1:-1], quotes=(_QUOTE,))]
    if text.startswith("{") and text.endswith("}"):
        return _members(text[1:-1])
    return text
