"""Finds tool calls in generated text."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from gotpl.parse import nodes as ast

from lhama.daemon.durations import quote
from lhama.daemon.prompt import goparse
from lhama.daemon.prompt.parsers import jsonread
from lhama.daemon.prompt.parsers.objects import Objects
from lhama.daemon.prompt.parsers.parser import Parsed, ParseError, call_id
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
_INVALID = "llama-server returned invalid tool call arguments for {}: {}"
"""Ollama's words for what its server's own parser let through."""
_TOKEN = re.compile(r"\[[^\]]*\]|<[^>]*>")


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

    def __init__(
        self,
        tag: str,
        names: Sequence[str],
        rng: random.Random | None = None,
        *,
        strict: bool = False,
    ) -> None:
        """``rng`` draws the calls' ids. ``strict``: a call whose JSON is broken is an error."""
        self._tag = tag
        self._strict = strict and tag not in _OPENINGS
        longest_first = sorted(filter(None, names), key=len, reverse=True)
        self._names = re.compile(
            rf"(?<![\w-])(?:{'|'.join(map(re.escape, longest_first))})(?![\w-])"
        )
        self._rng = rng or random.SystemRandom()
        self._state = "content" if not longest_first else "searching"
        self._held = ""
        self._objects = Objects()
        self._searched = 0
        self._count = 0

    @property
    def tags(self) -> tuple[str, ...]:
        """Special tokens that the tag may begin with, or be."""
        leading = _TOKEN.match(self._tag)
        return (leading.group(), self._tag) if leading else ()

    def feed(self, text: str) -> Parsed:
        """Content and calls that ``text`` settles. Raises ``ParseError``."""
        if self._state == "content":
            return Parsed(text)
        content = ""
        if self._state == "searching":
            content = self._search(self._held + text)
            if self._state != "calling":
                return Parsed(content)
            text = self._held
            self._held = ""
        before = len(self._held)
        self._held += text
        calls = self._calls(text, before)
        if self._state == "content":
            content += self._take()
        return Parsed(content, tool_calls=calls)

    def finish(self) -> Parsed:
        """Content that was held back: no more text comes."""
        if self._state == "searching" or (not self._count and self._tag in _OPENINGS):
            return Parsed(self._take())
        return Parsed()

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
            value = jsonread.value(self._held[start:end])
        except ParseError as error:
            if self._strict:
                raise ParseError(_INVALID.format(quote(name.group()), error.message)) from None
            return None
        found = arguments(value, name.group())
        call = ToolCall(name.group(), found, self._count, call_id(self._rng))
        self._count += 1
        return call

    def _take(self) -> str:
        taken, self._held = self._held, ""
        return taken


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
            value = jsonread.value(value)
        except ParseError:
            return None
    return value if isinstance(value, dict) else None
