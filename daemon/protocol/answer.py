"""What every protocol's answer is: deltas in, a stream's bytes or one body out. No I/O."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar

from lhama.daemon.protocol import sse
from lhama.daemon.wire import messages as wire

NOTHING = wire.Done("", prompt_tokens=0, prompt_ns=0, eval_tokens=0, eval_ns=0)
"""The counts where nothing was computed."""


@dataclass(slots=True)
class Piece:
    """What one part of a stream or one body carries of an answer."""

    content: str = ""
    thinking: str = ""
    tool_calls: list[wire.ToolCall] = field(default_factory=list)
    logprobs: list[wire.TokenLogprob] = field(default_factory=list)

    @classmethod
    def of(cls, *deltas: wire.Delta) -> Piece:
        """Deltas joined."""
        return cls(
            content="".join(d.content for d in deltas),
            thinking="".join(d.thinking for d in deltas),
            tool_calls=[call for d in deltas for call in d.tool_calls],
            logprobs=[item for d in deltas for item in d.logprobs],
        )

    def __bool__(self) -> bool:
        return bool(self.content or self.thinking or self.tool_calls or self.logprobs)


class Answer(ABC):
    """One answer in one protocol's form; used once, for a stream or for a body."""

    stream_type: ClassVar[str]
    """Content type of a stream."""
    stream_headers: ClassVar[dict[str, str]] = {}
    """Further headers of a stream, and of an error in its place."""
    whole_type: str = "application/json"
    """Content type of a body."""
    streams_controls: ClassVar[bool] = True
    """Whether a stream that computes nothing is a stream all the same."""

    def __init__(self, model: str) -> None:
        self._model = model
        self._load_ns = 0

    def loaded(self, load_ns: int) -> None:
        """The model is there; it took so many nanoseconds."""
        self._load_ns = load_ns

    @abstractmethod
    def lines(self, deltas: list[wire.Delta]) -> bytes:
        """The stream's part for some deltas: what each carries, and the end."""

    @abstractmethod
    def broken(self, status: int, message: str) -> bytes:
        """A stream's end by an error."""

    @abstractmethod
    def whole(self, piece: Piece, done: wire.Done) -> bytes:
        """All of the answer in one body."""

    def debug(self, rendered: wire.Rendered) -> bytes:
        """The body that shows a prompt (``_debug_render_only``), in protocols that can show it."""
        return self.whole(Piece(), NOTHING)

    def debug_event(self) -> bytes:
        """All of the stream that a request for the prompt gets: Ollama's streams have no place for
        it."""
        return b""

    def control(self, reason: str) -> bytes:
        """The body for a request without a prompt: ``load`` or ``unload``."""
        return self.whole(Piece(), wire.Done(reason, 0, 0, 0, 0))

    def body(self, deltas: list[wire.Delta]) -> bytes:
        """All deltas of the answer in one body."""
        done = deltas[-1].done if deltas else None
        assert done is not None, "an answer ends with its counts or an error"
        return self.whole(Piece.of(*deltas), done)


class EventAnswer(Answer):
    """An answer whose stream is server-sent events."""

    stream_type = sse.CONTENT_TYPE

    def lines(self, deltas: list[wire.Delta]) -> bytes:
        return b"".join([self.events(delta) for delta in deltas])

    @abstractmethod
    def events(self, delta: wire.Delta) -> bytes:
        """The events for one delta: what it carries, then the end, if it is it."""


def only_text(delta: wire.Delta) -> bool:
    """Whether a delta carries text and nothing else, as nearly all do."""
    return bool(delta.content) and not (delta.thinking or delta.tool_calls or delta.logprobs)
