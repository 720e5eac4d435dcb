"""A parser made of states."""

from __future__ import annotations

from collections.abc import Callable

from lhama.daemon.prompt.gotext import SPACE
from lhama.daemon.prompt.parsers.parser import Parsed, Parser, Request
from lhama.daemon.prompt.parsers.tags import Tags
from lhama.daemon.wire.messages import ToolCall

State = Callable[[], bool]


class Machine(Parser):
    """Text waits in ``_held``. A state is a method that takes off it what is settled, adds that to
    ``_content``, ``_thinking`` and ``_calls``, and returns whether the rest is to be looked at at
    once: it is, if the state has changed. It is not called with nothing held."""

    def __init__(self, request: Request) -> None:
        super().__init__(request)
        self._held = ""
        self._at_end = False
        """No more text comes: what is held becomes nothing else."""
        self._content = ""
        self._thinking = ""
        self._calls: list[ToolCall] = []
        self._eats_space = False
        self._searched = 0
        self._state: State = self._in_content

    def feed(self, text: str) -> Parsed:
        self._held += text
        return self._run()

    def finish(self) -> Parsed:
        self._at_end = True
        return self._run()

    def skip_thinking(self) -> None:
        self._state = self._in_content

    def _in_content(self) -> bool:
        """Text for the user."""
        raise NotImplementedError

    def _run(self) -> Parsed:
        while True:
            if self._eats_space:
                self._held = self._held.lstrip(SPACE)
                self._eats_space = not self._held
            if not self._held or not self._state():
                break
        content, thinking = self._content, self._thinking
        self._content = self._thinking = ""
        if not self._calls:
            return Parsed(content, thinking)
        calls, self._calls = self._calls, []
        return Parsed(content, thinking, calls)

    def _go(self, state: State, *, eat_space: bool = False) -> None:
        """Change the state; ``eat_space``: white space that follows belongs to nothing."""
        self._state = state
        self._searched = 0
        self._eats_space = eat_space

    def _text(self, tags: Tags, *, trim: bool = True, trim_end: bool = True) -> tuple[str, str]:
        """Take off the text that surely precedes all ``tags``, and the tag after it, if it came.

        ``trim``: white space before a tag belongs to nothing; ``trim_end``: nor does that at the
        end of the answer.
        """
        before, tag, rest = tags.split(self._held)
        if self._at_end and not tag:
            before, rest = self._held, ""
            trim = trim and trim_end
        if not trim:
            self._held = rest
            return before, tag
        text = before.rstrip(SPACE)
        self._held = rest if tag or self._at_end else before[len(text) :] + rest
        return text, tag

    def _think_until(self, tags: Tags, then: State, *, trim: bool = True) -> bool:
        """Take off thinking; white space after the tag that ends it belongs to nothing."""
        text, tag = self._text(tags, trim=trim)
        self._thinking += text
        if tag:
            self._go(then, eat_space=True)
        return bool(tag)

    def _speak_until(self, tags: Tags, then: State, *, trim: bool = True) -> bool:
        """Take off content, white space at the end of the answer too."""
        text, tag = self._text(tags, trim=trim, trim_end=False)
        self._content += text
        if tag:
            self._go(then)
        return bool(tag)

    def _upto(self, tags: Tags) -> tuple[str, str]:
        """Take off everything up to the first tag, and that tag; both are empty while none came."""
        place, tag = tags.find(self._held, self._searched)
        if not tag:
            self._searched = max(0, len(self._held) - tags.reach)
            return "", ""
        text, self._held = self._held[:place], self._held[place + len(tag) :]
        self._searched = 0
        return text, tag

    def _rest(self) -> str:
        """Take off everything."""
        rest, self._held = self._held, ""
        return rest
