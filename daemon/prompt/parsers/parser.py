"""What a parser of generated text is, and what it gets to know of the request."""

from __future__ import annotations

import random
import string
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

from lhama.daemon.errors import LhamaError
from lhama.daemon.prompt.tools import Tool
from lhama.daemon.wire.messages import Message, ToolCall

_ID_LETTERS = string.ascii_lowercase + string.digits
_ID_LENGTH = 8


class ParseError(LhamaError):
    """Text that is no answer of this family, such as a call with broken arguments (500)."""


class Parsed(NamedTuple):
    """What a piece of text settled; every part may be empty. Not to be changed in place."""

    content: str = ""
    thinking: str = ""
    tool_calls: list[ToolCall] = []


@dataclass(frozen=True, slots=True)
class Request:
    """What parsers are made from."""

    tools: Sequence[Tool] = ()
    think: bool | str | None = None
    last: Message | None = None
    """The conversation's last message; an assistant's is continued."""
    rng: random.Random = field(default_factory=random.SystemRandom)
    """Draws the ids of tool calls."""

    @property
    def continues_text(self) -> bool:
        """Whether the answer begins in the middle of its text."""
        return bool(self.last and self.last.role == "assistant" and self.last.content)

    def tool(self, name: str) -> Tool | None:
        return next((tool for tool in self.tools if tool.name == name), None)


class Parser(ABC):
    """One answer's parser."""

    tools: ClassVar[bool] = True
    """Whether the family calls tools."""
    thinking: ClassVar[bool] = True
    """Whether it can think."""
    tags: ClassVar[tuple[str, ...]] = ()
    """Special tokens whose text the parser must see."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self._numbered = 0

    @abstractmethod
    def feed(self, text: str) -> Parsed:
        """Add text; what may still become a tag or a call is held back. Raises ``ParseError``."""

    @abstractmethod
    def finish(self) -> Parsed:
        """What is still held back: no more text comes. Called once. Raises ``ParseError``."""

    @abstractmethod
    def skip_thinking(self) -> None:
        """Begin with content: the thinking stands in the prompt already. Called before ``feed``."""

    @staticmethod
    def declared(tools: Sequence[dict[str, Any]]) -> Sequence[dict[str, Any]]:
        """The tools as the prompt shall declare them."""
        return tools

    @staticmethod
    def bridge(last: Message) -> str:
        """What the prompt lacks after ``last`` for the answer itself to come next."""
        return ""

    def call(self, name: str, arguments: dict[str, Any]) -> ToolCall:
        """The next call, with a number and an id."""
        self._numbered += 1
        return ToolCall(name, arguments, self._numbered - 1, call_id(self.request.rng))


def call_id(rng: random.Random) -> str:
    return "call_" + "".join(rng.choices(_ID_LETTERS, k=_ID_LENGTH))
