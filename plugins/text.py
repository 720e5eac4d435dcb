"""The contract for models whose answers come as text: they run elsewhere, behind an API.

``Backend.load`` may return a ``TextEngine`` instead of an ``Engine``. Prompt template, tokenizer,
batches and cache are then the other side's affair: a conversation goes out as it is, pieces of text
come back as they are written. Nothing here waits, and many answers run at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable

from lhama.plugins.backend import BackendError, Residency, Sampling


class TextError(BackendError):
    """Why an answer did not come, or not to its end; ``status`` is HTTP's, for the client."""

    def __init__(self, message: str, status: int = 502) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Call:
    """A function call that the model makes, or made earlier."""

    name: str
    arguments: Mapping[str, Any]
    id: str = ""


@dataclass(frozen=True, slots=True)
class Turn:
    """One message of a conversation; ``role`` is ``system``, ``user``, ``assistant`` or ``tool``."""

    role: str
    content: str = ""
    thinking: str = ""
    media: tuple[bytes, ...] = ()
    """Pictures and sounds: files' bytes."""
    calls: tuple[Call, ...] = ()
    tool: str = ""
    """Of a tool's answer: its name, and the ``id`` of the call, as far as they are known."""
    call: str = ""


@dataclass(frozen=True, slots=True)
class Question:
    """What to answer: a conversation, or a text to go on with where there are no turns."""

    turns: tuple[Turn, ...] = ()
    text: str = ""
    tools: tuple[Mapping[str, Any], ...] = ()
    """In OpenAI's form: ``{"type": "function", "function": {…}}``."""
    sampling: Sampling = field(default_factory=Sampling)
    stop: tuple[str, ...] = ()
    most_tokens: int = -1
    """Negative: no limit but the model's."""
    think: bool | str | None = None
    """Whether to think before answering, or how hard; ``None``: as the model likes."""
    grammar: str = ""
    """``json``, or a JSON Schema's text, that the answer must keep to; empty: none."""
    logprobs: int = -1
    """As ``Admit.logprobs``."""


@dataclass(frozen=True, slots=True)
class Logprob:
    """One token of an answer: its bytes, its log-probability, the likeliest in its place."""

    token: bytes
    logprob: float
    top: tuple[tuple[bytes, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Piece:
    """The next of an answer. A call comes whole."""

    content: str = ""
    thinking: str = ""
    calls: tuple[Call, ...] = ()
    logprobs: tuple[Logprob, ...] = ()


@dataclass(frozen=True, slots=True)
class End:
    """An answer's end; counts in tokens."""

    reason: Literal["stop", "length"]
    prompt_tokens: int = 0
    tokens: int = 0
    cached_tokens: int = 0
    """Of the prompt, where the other side says so."""


Tell: TypeAlias = Callable[[Piece | End | TextError], None]
"""Takes an answer's pieces in order, from any thread; an ``End`` or a ``TextError`` is the last."""

Cancel: TypeAlias = Callable[[], None]


@runtime_checkable
class TextEngine(Protocol):
    """One model that runs elsewhere. Called from one thread."""

    @property
    def slots(self) -> int:
        """Answers at once; the core holds back what is beyond."""
        ...

    @property
    def context(self) -> int:
        """Tokens that prompt and answer may have."""
        ...

    @property
    def residency(self) -> Residency: ...

    def start(self, question: Question, tell: Tell) -> Cancel:
        """Begin to answer and return at once.

        What is returned ends the answer before its end: the other side is to stop computing. It may
        be called at any time and any number of times; what ``tell`` still gets is dropped.
        """
        ...

    def close(self) -> None:
        """Release everything; every answer has ended or was cancelled. Called once."""
        ...
