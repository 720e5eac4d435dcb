"""Finds tool calls in generated text."""

from __future__ import annotations

import json
import random
import re
import string
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from gotpl.parse import nodes as ast

from lhama.daemon.prompt import goparse
from lhama.daemon.prompt.thinking import overlap
from lhama.daemon.wire.messages import ToolCall

BARE = "{"
"""The tag of templates that mark a call by nothing but its JSON."""
_OPENINGS = ("{", "[")
_JINJA_TAGS = (
    "<tool_call>",
    "<|tool_call|>",
    "[TOOL_CALLS]",
    "<function_calls>",
    "<|tool_call_start|>",
)
_ID_LETTERS = string.ascii_lowercase + string.digits
_ID_LENGTH = 8


@lru_cache(maxsize=64)
def tag_of_go(text: str) -> str:
    """What opens a call: the first text inside ``if .ToolCalls``, up to its ``{``."""
    for node, _ in goparse.walk(goparse.parse(text).root):
        if isinstance(node, ast.IfNode) and _asks_for_calls(node.pipeline):
            first = _first_text(node.body.nodes) or ""
            return first.replace("\r\n", "\n").partition("{")[0].strip() or BARE
    return BARE


def tag_of_jinja(text: str) -> str:
    """The first known opening tag that the template mentions."""
    return next((tag for tag in _JINJA_TAGS if tag in text), BARE)


def _asks_for_calls(pipeline: ast.PipeNode) -> bool:
    return any(
        isinstance(argument, ast.FieldNode) and "ToolCalls" in argument.fields
        for command in pipeline.commands
        for argument in command.arguments
    )


def _first_text(nodes: Iterable[Any]) -> str | None:
    """The first text that is not blank; ``None`` if an action prints before it."""
    for node in nodes:
        if isinstance(node, ast.ActionNode):
            if not node.pipeline.declarations:
                return None
        elif isinstance(node, ast.TextNode):
            if node.text.strip():
                return str(node.text)
        elif isinstance(node, ast.IfNode | ast.WithNode | ast.RangeNode):
            below = (*node.body.nodes, *(node.else_body.nodes if node.else_body else ()))
            if (found := _first_text(below)) is not None:
                return found
    return None


class ToolCallParser:
    """Splits a stream into content and calls.

    Text is content until ``tag``; from there on it is held. A call is a known tool's name and the
    JSON object that ends after it. With the tags ``{`` and ``[`` only a stream that begins with
    one can hold calls, and what turns out to be none is content after all; behind another tag
    what is no call is dropped, as Ollama does.
    """

    def __init__(self, tag: str, names: Sequence[str], rng: random.Random | None = None) -> None:
        """``rng`` draws the calls' ids."""
        self._tag = tag
        longest_first = sorted(filter(None, names), key=len, reverse=True)
        self._names = re.compile(
            rf"(?<![\w-])(?:{'|'.join(map(re.escape, longest_first))})(?![\w-])"
        )
        self._rng = rng or random.SystemRandom()
        self._state = "content" if not longest_first else "searching"
        self._held = ""
        self._objects = _Objects()
        self._searched = 0
        self._count = 0

    def feed(self, text: str) -> tuple[str, list[ToolCall]]:
        """Content and calls that ``text`` settles."""
        if self._state == "content":
            return text, []
        content = ""
        if self._state == "searching":
            content = self._search(self._held + text)
            if self._state != "calling":
                return content, []
            text = self._held
            self._held = ""
        before = len(self._held)
        self._held += text
        calls = self._calls(text, before)
        return (content + self._take() if self._state == "content" else content), calls

    def finish(self) -> str:
        """Content that was held back: no more text comes."""
        if self._state == "searching" or (not self._count and self._tag in _OPENINGS):
            return self._take()
        return ""

    def _search(self, text: str) -> str:
        """Content before the tag, or before what may become it; the rest is held."""
        place = text.find(self._tag)
        found = place >= 0
        if not found:
            place = len(text) - overlap(text, self._tag)
        content, self._held = text[:place], text[place:]
        if self._tag in _OPENINGS and content.strip():
            self._state = "content"
            return content + self._take()
        if found:
            self._state = "calling"
        return content

    def _calls(self, text: str, offset: int) -> list[ToolCall]:
        """Calls whose JSON ends in ``text``, which lies at ``offset`` of the held text."""
        calls: list[ToolCall] = []
        shift = 0
        for start, end in self._objects.feed(text, offset):
            call = self._call(start - shift, end - shift)
            if call is not None:
                calls.append(call)
                self._held = self._held[end - shift :]
                self._searched = 0
                shift = end
            else:
                self._searched = end - shift
                if self._tag == BARE and not self._count:
                    self._state = "content"
                    return calls
        self._objects.moved(shift)
        if self._tag == "[" and self._objects.closed and not self._count:
            self._state = "content"
        return calls

    def _call(self, start: int, end: int) -> ToolCall | None:
        name = self._names.search(self._held, self._searched, end)
        if name is None:
            return None
        try:
            value = json.loads(self._held[start:end])
        except (ValueError, RecursionError):
            return None
        call = ToolCall(name.group(), arguments(value, name.group()), self._count, self._new_id())
        self._count += 1
        return call

    def _new_id(self) -> str:
        return "call_" + "".join(self._rng.choices(_ID_LETTERS, k=_ID_LENGTH))

    def _take(self) -> str:
        taken, self._held = self._held, ""
        return taken


class _Objects:
    """Finds outermost JSON objects in a stream, looking at each character once."""

    def __init__(self) -> None:
        self._start = -1
        self._depth = 0
        self._brackets = 0
        self._in_string = False
        self._escaped = False
        self.closed = False
        """An array that was opened outside all objects is closed again."""

    def feed(self, text: str, offset: int) -> list[tuple[int, int]]:
        """Start and end of the objects that end in ``text``, which begins at ``offset``."""
        found: list[tuple[int, int]] = []
        for place, letter in enumerate(text, offset):
            if self._in_string:
                if self._escaped:
                    self._escaped = False
                elif letter == "\\":
                    self._escaped = True
                elif letter == '"':
                    self._in_string = False
            elif letter == "{":
                if self._depth == 0:
                    self._start = place
                self._depth += 1
            elif letter == "}" and self._depth:
                self._depth -= 1
                if self._depth == 0:
                    found.append((self._start, place + 1))
            elif letter == '"':
                self._in_string = self._depth > 0
            elif self._depth == 0 and letter in "[]":
                self._brackets += 1 if letter == "[" else -1
                self.closed = self._brackets == 0
        return found

    def moved(self, by: int) -> None:
        """The first ``by`` characters of the text are gone."""
        self._start -= by


def arguments(value: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The arguments of a call to ``name`` in the object ``value``: below ``arguments``,
    ``parameters`` or the tool's own name, here or deeper; else ``value`` itself."""
    found = _envelope(value, name)
    return dict(value) if found is None else found


def _envelope(value: Any, name: str) -> dict[str, Any] | None:
    if isinstance(value, list):
        return next((f for item in value if (f := _envelope(item, name)) is not None), None)
    if not isinstance(value, dict):
        return None
    for key in ("arguments", "parameters", name):
        if (found := _object(value.get(key))) is not None:
            return found
    if value.get("name") == name:
        return {}
    return _envelope(list(value.values()), name)


def _object(value: Any) -> dict[str, Any] | None:
    """``value`` if it is an object, or the object that it holds as a string."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return None
    return value if isinstance(value, dict) else None
