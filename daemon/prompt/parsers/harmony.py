"""Harmony, gpt-oss's format: messages with channels and recipients.

``<|start|>role to=recipient<|channel|>name <|constrain|>json<|message|>text<|end|>``
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from lhama.daemon.prompt.gotext import SPACE
from lhama.daemon.prompt.parsers import jsonread
from lhama.daemon.prompt.parsers.machine import Machine
from lhama.daemon.prompt.parsers.parser import ParseError, Request
from lhama.daemon.prompt.parsers.tags import Tags
from lhama.daemon.wire.messages import Message

_START, _END, _MESSAGE = "<|start|>", "<|end|>", "<|message|>"
_CHANNEL, _CONSTRAIN = "<|channel|>", "<|constrain|>"
_ASSISTANT = f"{_START}assistant"
FINAL = f"{_CHANNEL}final{_MESSAGE}"
_ANALYSIS = f"{_CHANNEL}analysis{_MESSAGE}"
_BEFORE, _IN_HEADER, _IN_BODY = Tags(_START), Tags(_MESSAGE), Tags(_END)
_CHANNEL_NAME = re.compile(rf"{re.escape(_CHANNEL)}([^{SPACE}]*)")
_NAMESPACE = "functions."
_BUILT_IN = frozenset({"browser.open", "browser.search", "browser.find", "python"})
_NO_NAME = "unnamed"


class Header(NamedTuple):
    channel: str = ""
    recipient: str = ""


class Harmony(Machine):
    """The prompt ends where the assistant's header begins, or inside a message that is continued."""

    tags = (_START, _END, _MESSAGE, _CHANNEL, _CONSTRAIN)

    def __init__(self, request: Request) -> None:
        super().__init__(request)
        last = request.last if request.last and request.last.role == "assistant" else None
        opened = FINAL if last and last.content else _ANALYSIS if last and last.thinking else ""
        self._held = _ASSISTANT + opened
        self._state = self._before
        self._recipient = ""
        self._arguments = ""
        names = [tool.name for tool in request.tools if tool.name]
        self._declared = {shown: name for name, shown in identifiers(names).items()}

    @staticmethod
    def declared(tools: Sequence[dict[str, Any]]) -> Sequence[dict[str, Any]]:
        """Tools under names that TypeScript knows as identifiers."""
        functions = [tool.get("function") or {} for tool in tools]
        shown = identifiers([f["name"] for f in functions if f.get("name")])
        return [
            {**tool, "function": {**f, "name": shown[f["name"]]}} if f.get("name") else tool
            for tool, f in zip(tools, functions, strict=True)
        ]

    @staticmethod
    def bridge(last: Message) -> str:
        """The final channel's header; an open message is closed before it."""
        continued = last.role == "assistant" and (last.content or last.thinking)
        return f"{_END}{_ASSISTANT}{FINAL}" if continued else FINAL

    def skip_thinking(self) -> None:
        self._held = _ASSISTANT + FINAL

    def _before(self) -> bool:
        """Before a message."""
        _, tag = self._upto(_BEFORE)
        if tag:
            self._go(self._in_header)
        return bool(tag)

    def _in_header(self) -> bool:
        text, tag = self._upto(_IN_HEADER)
        if not tag:
            return False
        header = _header(text)
        if header.recipient and header.channel in ("analysis", "commentary"):
            self._recipient = header.recipient
            self._go(self._in_call)
        else:
            self._go(self._in_thought if header.channel == "analysis" else self._in_content)
        return True

    def _in_content(self) -> bool:
        return self._speak_until(_IN_BODY, self._before, trim=False)

    def _in_thought(self) -> bool:
        return self._think_until(_IN_BODY, self._before, trim=False)

    def _in_call(self) -> bool:
        text, tag = self._upto(_IN_BODY)
        if tag:
            self._add(text)
            self._go(self._before)
        return bool(tag)

    def finish(self) -> Any:
        """Calls end with a token that ends the answer: nothing closes them."""
        if self._state == self._in_call:
            self._add(self._rest())
        return super().finish()

    def _add(self, text: str) -> None:
        name = self._recipient.removeprefix(_NAMESPACE)
        try:
            arguments = jsonread.arguments(text)
        except ParseError as error:
            raise ParseError(
                f"error parsing tool call: raw='{text}', err={error.message}"
            ) from None
        self._calls.append(self.call(self._declared.get(name, name), arguments))


def _header(text: str) -> Header:
    """The channel's name, and who the message is for, which may stand before or after it."""
    channel = _CHANNEL_NAME.search(text)
    others = text if channel is None else text[: channel.start()] + text[channel.end() :]
    words = others.replace(_CONSTRAIN, f" {_CONSTRAIN}").split()
    recipient = next((w.removeprefix("to=") for w in words[:2] if w.startswith("to=")), "")
    return Header(channel.group(1) if channel else "", recipient)


def identifiers(names: Sequence[str]) -> dict[str, str]:
    """Each function's name as a TypeScript identifier; a number tells equal ones apart."""
    taken: dict[str, str] = {}
    for name in names:
        candidate = plain = _identifier(name)
        number = 2
        while candidate in taken:
            candidate, number = f"{plain}_{number}", number + 1
        taken[name if name in _BUILT_IN else candidate] = name
    return {name: shown for shown, name in taken.items()}


def _identifier(name: str) -> str:
    letters = ("_" if letter in " -." else letter for letter in name)
    kept = "".join(c for c in letters if c.isalpha() or c.isdecimal() or c in "_$")
    if not kept:
        return _NO_NAME
    return f"_{kept}" if "0" <= kept[0] <= "9" else kept
