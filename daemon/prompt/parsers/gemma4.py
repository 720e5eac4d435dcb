"""Gemma 4: thinking in a channel, calls in the notation of ``bracketed``."""

from __future__ import annotations

from lhama.daemon.prompt.gotext import SPACE
from lhama.daemon.prompt.parsers.bracketed import Reader
from lhama.daemon.prompt.parsers.machine import Machine
from lhama.daemon.prompt.parsers.parser import ParseError, Request
from lhama.daemon.prompt.parsers.tags import Tags

_CHANNEL, _CHANNEL_END = "<|channel>", "<channel|>"
_CALL, _CALL_END = "<|tool_call>", "<tool_call|>"
_RESPONSE = "<|tool_response>"
_QUOTE = '<|"|>'
_CHANNEL_NAME = "thought\n"
_NOISE = (_CALL_END, _RESPONSE)
_IN_CONTENT, _IN_THINKING, _IN_CALL = Tags(_CHANNEL, _CALL), Tags(_CHANNEL_END), Tags(_CALL_END)


class Gemma4(Machine):
    """Thoughts of a model that was not asked for them are dropped, and so are broken calls."""

    tags = (_CHANNEL, _CHANNEL_END, _CALL, _CALL_END, _RESPONSE, _QUOTE)

    def __init__(self, request: Request) -> None:
        super().__init__(request)
        self._thinks = self.thinking and bool(request.think)
        if self._thinks and request.last and request.last.role == "tool":
            self._state = self._in_thinking

    def _in_content(self) -> bool:
        text, tag = self._text(_IN_CONTENT, trim_end=False)
        self._content += text
        if tag:
            self._go(self._in_channel if tag == _CHANNEL else self._in_call)
        return bool(tag)

    def _in_channel(self) -> bool:
        """At the channel's name."""
        if self._held.startswith(_CHANNEL_NAME):
            self._held = self._held[len(_CHANNEL_NAME) :]
        elif _CHANNEL_NAME.startswith(self._held) and not self._at_end:
            return False
        self._go(self._in_thinking)
        return True

    def _in_thinking(self) -> bool:
        text, tag = self._text(_IN_THINKING)
        if self._thinks:
            self._thinking += text
        if tag:
            self._go(self._in_content, eat_space=True)
        return bool(tag)

    def _in_call(self) -> bool:
        text, tag = self._upto(_IN_CALL)
        if not tag and self._at_end:
            text = self._rest()
        if text:
            self._add(text)
        if tag:
            self._go(self._after_call, eat_space=True)
        return bool(tag)

    def _after_call(self) -> bool:
        """The model repeats the closing tag at times."""
        for tag in _NOISE:
            if self._held.startswith(tag):
                self._held = self._held[len(tag) :]
                self._eats_space = True
                return True
        if any(tag.startswith(self._held) for tag in _NOISE) and not self._at_end:
            return False
        self._go(self._in_content)
        return True

    def _add(self, text: str) -> None:
        """``call:name{…}``"""
        name, brace, arguments = text.removeprefix("call:").partition("{")
        if not (text.startswith("call:") and brace):
            return
        tool = self.request.tool(name.strip(SPACE))
        names = list(tool.properties) if tool else []
        bare = [key for key in names if tool and "string" in tool.types(key)]
        try:
            read = Reader(brace + arguments, _QUOTE, bare, names).arguments()
        except ParseError:
            return
        self._calls.append(self.call(name.strip(SPACE), read))


class Gemma4NoThinking(Gemma4):
    thinking = False
