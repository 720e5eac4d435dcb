"""Generated text, as it comes, into content, thinking and tool calls."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import NamedTuple, Protocol

from lhama.daemon.prompt import thinking, toolcalls
from lhama.daemon.prompt.thinking import Tags, ThinkingSplitter
from lhama.daemon.prompt.toolcalls import ToolCallParser
from lhama.daemon.wire.messages import Prompt, ToolCall


class Parsed(NamedTuple):
    """What a piece of text settled; every part may be empty. Not to be changed in place."""

    content: str = ""
    thinking: str = ""
    tool_calls: list[ToolCall] = []


class FamilyParser(Protocol):
    """A parser for one model family's own output format."""

    def feed(self, text: str) -> Parsed: ...

    def finish(self) -> Parsed: ...


FAMILY_PARSERS: dict[str, Callable[[Prompt, str], FamilyParser]] = {}
"""By ``Prompt.parser``; called with the prompt and its text. A name not here is ignored."""


class OutputParser:
    """One answer's parser. Without thinking tags and tools it hands text through."""

    def __init__(
        self,
        prompt: Prompt,
        rendered_text: str,
        jinja: str = "",
        rng: random.Random | None = None,
    ) -> None:
        """``jinja``: the GGUF's chat template, which speaks if the prompt has no Go template;
        ``rng`` draws the ids of tool calls."""
        make = FAMILY_PARSERS.get(prompt.parser)
        self._family = make(prompt, rendered_text) if make else None
        self._thinking: ThinkingSplitter | None = None
        self._tools: ToolCallParser | None = None
        if self._family is None and prompt.raw is None:
            self._thinking = _thinking_splitter(prompt, rendered_text, jinja)
            self._tools = _tool_parser(prompt, jinja, rng)
        self._plain = self._family is None and self._thinking is None and self._tools is None

    def feed(self, text: str) -> Parsed:
        """Add text; what may still become a tag or a call is held back."""
        if self._plain:
            return Parsed(text)
        if self._family is not None:
            return self._family.feed(text)
        thought = ""
        if self._thinking is not None:
            thought, text = self._thinking.feed(text)
        if self._tools is None or not text:
            return Parsed(text, thought)
        content, calls = self._tools.feed(text)
        return Parsed(content, thought, calls)

    def finish(self) -> Parsed:
        """What is still held back: no more text comes. Called once."""
        if self._family is not None:
            return self._family.finish()
        thought = content = ""
        calls: list[ToolCall] = []
        if self._thinking is not None:
            thought, content = self._thinking.finish()
        if self._tools is not None:
            content, calls = self._tools.feed(content)
            content += self._tools.finish()
        return Parsed(content, thought, calls)


def _thinking_splitter(prompt: Prompt, text: str, jinja: str) -> ThinkingSplitter | None:
    tags: Tags | None
    if prompt.go_template:
        tags = thinking.tags_of_go(prompt.go_template) if prompt.think else None
    else:
        tags = thinking.tags_of_jinja(jinja)
    if tags is None:
        return None
    started = text.rstrip().endswith(tags.open)
    if not prompt.think and not started:
        return None
    return ThinkingSplitter(tags, started=started)


def _tool_parser(prompt: Prompt, jinja: str, rng: random.Random | None) -> ToolCallParser | None:
    if not prompt.tools:
        return None
    if prompt.go_template:
        tag = toolcalls.tag_of_go(prompt.go_template)
    else:
        tag = toolcalls.tag_of_jinja(jinja)
    functions = [tool.get("function") for tool in prompt.tools]
    names = [f.get("name") for f in functions if isinstance(f, dict)]
    return ToolCallParser(tag, [name for name in names if isinstance(name, str)], rng)
