"""Generated text, as it comes, into content, thinking and tool calls."""

from __future__ import annotations

import random

from lhama.daemon.prompt import thinking, toolcalls
from lhama.daemon.prompt.parsers import inferred
from lhama.daemon.prompt.parsers.inferred import Inferred
from lhama.daemon.prompt.parsers.parser import Parsed, Parser, Request
from lhama.daemon.prompt.parsers.registry import PARSERS
from lhama.daemon.prompt.thinking import Tags, ThinkingSplitter
from lhama.daemon.prompt.toolcalls import ToolCallParser
from lhama.daemon.prompt.tools import read_all
from lhama.daemon.wire.messages import Prompt


class OutputParser:
    """One answer's parser: a family's, or one made of what the template shows, thinking first and
    then calls. Without thinking tags and tools it hands text through."""

    def __init__(
        self,
        prompt: Prompt,
        rendered_text: str,
        jinja: str = "",
        rng: random.Random | None = None,
    ) -> None:
        """``jinja``: the GGUF's chat template, which speaks if the prompt has no Go template;
        ``rng`` draws the ids of tool calls."""
        self._thinking: ThinkingSplitter | None = None
        self._rest: Parser | ToolCallParser | None = None
        if prompt.raw is not None:
            return
        rng = rng or random.SystemRandom()
        chosen = inferred.choose(prompt, jinja)
        if chosen and chosen.whole:
            self._rest = _family_parser(prompt, chosen, rendered_text, rng)
            return
        self._thinking = _thinking_splitter(prompt, rendered_text, jinja)
        if prompt.tools:
            self._rest = _call_parser(prompt, chosen, jinja, rng)

    @property
    def tags(self) -> tuple[str, ...]:
        """Special tokens whose text the parser must see."""
        thinking = () if self._thinking is None else self._thinking.tags
        return (*thinking, *(() if self._rest is None else self._rest.tags))

    def feed(self, text: str) -> Parsed:
        """Add text; what may still become a tag or a call is held back. Raises ``ParseError``."""
        if self._thinking is None:
            return Parsed(text) if self._rest is None else self._rest.feed(text)
        thought, text = self._thinking.feed(text)
        if self._rest is None or not text:
            return Parsed(text, thought)
        return _with_thought(thought, self._rest.feed(text))

    def finish(self) -> Parsed:
        """What is still held back: no more text comes. Called once. Raises ``ParseError``."""
        if self._thinking is None:
            return Parsed() if self._rest is None else self._rest.finish()
        thought, content = self._thinking.finish()
        if self._rest is None:
            return Parsed(content, thought)
        said, rest = self._rest.feed(content), self._rest.finish()
        calls = [*said.tool_calls, *rest.tool_calls]
        return Parsed(said.content + rest.content, thought + said.thinking + rest.thinking, calls)


def _with_thought(thought: str, parsed: Parsed) -> Parsed:
    return (
        Parsed(parsed.content, thought + parsed.thinking, parsed.tool_calls) if thought else parsed
    )


def _family_parser(prompt: Prompt, chosen: Inferred, text: str, rng: random.Random) -> Parser:
    if chosen.name == prompt.parser:
        think = None if prompt.think_by_default else prompt.think
    else:
        think = not chosen.opens or text.rstrip().endswith(chosen.opens)
    last = prompt.messages[-1] if prompt.messages else None
    parser = PARSERS[chosen.name](Request(read_all(prompt.tools), think, last, rng))
    if prompt.answering:
        parser.skip_thinking()
    return parser


def _call_parser(
    prompt: Prompt, chosen: Inferred | None, jinja: str, rng: random.Random
) -> Parser | ToolCallParser:
    tools = read_all(prompt.tools)
    if chosen:
        return PARSERS[chosen.name](Request(tools, think=False, rng=rng))
    names = [tool.name for tool in tools if tool.name]
    if prompt.go_template:
        return ToolCallParser(toolcalls.tag_of_go(prompt.go_template), names, rng)
    return ToolCallParser(toolcalls.tag_of_jinja(jinja), names, rng, strict=True)


def _thinking_splitter(prompt: Prompt, text: str, jinja: str) -> ThinkingSplitter | None:
    tags: Tags | None
    if prompt.answering:
        return None
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
