"""Thinking tags: which a template uses, and splitting them out of streamed text."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from gotpl.parse import nodes as ast

from lhama.daemon.prompt import goparse

WHITE_SPACE = " \t\n\v\f\r\x85\xa0"
"""What Go's ``unicode.IsSpace`` calls space, as far as models print it."""


class Tags(NamedTuple):
    """Texts around a thinking block."""

    open: str
    close: str


THINK = Tags("<think>", "</think>")


@lru_cache(maxsize=64)
def tags_of_go(text: str) -> Tags | None:
    """The texts around ``.Thinking`` inside ``range .Messages``, if the template has both."""
    opening = closing = ""
    for tree in goparse.trees(text):
        for node, ancestors in goparse.walk(tree):
            if not (isinstance(node, ast.FieldNode) and node.fields[:1] == ("Thinking",)):
                continue
            loop = next((a for a in reversed(ancestors) if isinstance(a, ast.RangeNode)), None)
            if loop is None or not _over_messages(loop):
                continue
            around = next(a for a in reversed(ancestors) if isinstance(a, ast.ListNode)).nodes
            if isinstance(around[0], ast.TextNode):
                opening = around[0].text.strip()
            if isinstance(around[-1], ast.TextNode):
                closing = around[-1].text.strip()
    return Tags(opening, closing) if opening and closing else None


def _over_messages(loop: ast.RangeNode) -> bool:
    return any(
        isinstance(node, ast.FieldNode | ast.VariableNode) and "Messages" in node.fields
        for node, _ in goparse.walk(loop.pipeline)
    )


_OWN_THINKING = ("reasoning_content", "<SPECIAL_12>")
"""Of templates that take thinking out of answers without the model writing it in tags."""


@lru_cache(maxsize=64)
def tags_of_jinja(text: str) -> Tags | None:
    """``<think>`` tags, if the template writes them or takes them out of earlier answers."""
    if THINK.open in text and THINK.close in text:
        return THINK
    splits = any(f"content.split({q}{THINK.close}{q})" in text for q in "'\"")
    return THINK if splits and not any(mark in text for mark in _OWN_THINKING) else None


class ThinkingSplitter:
    """Splits a stream into thinking and content.

    Thinking is the first block only, and only at the very start but for white space; white space
    after the opening and the closing tag belongs to neither. The beginning of a tag is held back.
    """

    def __init__(self, tags: Tags, *, started: bool = False) -> None:
        """``started``: the prompt ended with the opening tag."""
        self.tags = tags
        self._held = ""
        self._state = "opened" if started else "before"

    @property
    def done(self) -> bool:
        """All further text is content as it comes."""
        return self._state == "content"

    def feed(self, text: str) -> tuple[str, str]:
        """Thinking and content that ``text`` settles."""
        if self._state == "content":
            return "", text
        self._held += text
        if self._state == "before" and not self._find_opening():
            if self._state == "before":
                return "", ""
            return "", self._take()
        if self._state == "opened":
            self._held = self._held.lstrip(WHITE_SPACE)
            if not self._held:
                return "", ""
            self._state = "thinking"
        thinking = self._split_thinking() if self._state == "thinking" else ""
        if self._state == "closed":
            self._held = self._held.lstrip(WHITE_SPACE)
            if self._held:
                self._state = "content"
        return thinking, self._take() if self._state == "content" else ""

    def finish(self) -> tuple[str, str]:
        """What was held back: no more text comes."""
        rest = self._take()
        if self._state == "thinking":
            return rest, ""
        return "", rest if self._state == "before" else ""

    def _find_opening(self) -> bool:
        start = self._held.lstrip(WHITE_SPACE)
        if start.startswith(self.tags.open):
            self._held = start[len(self.tags.open) :]
            self._state = "opened"
            return True
        if not self.tags.open.startswith(start):
            self._state = "content"
        return False

    def _split_thinking(self) -> str:
        thinking, closed, rest = self._held.partition(self.tags.close)
        if closed:
            self._held = rest
            self._state = "closed"
            return thinking
        sure = len(self._held) - overlap(self._held, self.tags.close)
        thinking, self._held = self._held[:sure], self._held[sure:]
        return thinking

    def _take(self) -> str:
        taken, self._held = self._held, ""
        return taken


def overlap(text: str, tag: str) -> int:
    """Length of the longest end of ``text`` that is a beginning of ``tag``, but not all of it."""
    for length in range(min(len(text), len(tag) - 1), 0, -1):
        if text.endswith(tag[:length]):
            return length
    return 0


def without_thinking(text: str) -> str:
    """``text`` without its leading ``<think>`` block."""
    splitter = ThinkingSplitter(THINK)
    _, content = splitter.feed(text)
    return content + splitter.finish()[1]
