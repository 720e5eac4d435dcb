"""An answer on its way to a client: deltas in, NDJSON lines or one JSON body out."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, ClassVar

from lhama.daemon.protocol import goencode, times
from lhama.daemon.protocol.replies import (
    ChatReply,
    ChunkEncoder,
    DebugInfo,
    GenerateReply,
    ReplyMessage,
    logprobs,
    tool_calls,
)
from lhama.daemon.wire import messages as wire


@dataclass(slots=True)
class Piece:
    """What one line or one body carries of an answer."""

    content: str = ""
    thinking: str = ""
    tool_calls: list[wire.ToolCall] = field(default_factory=list)
    logprobs: list[wire.TokenLogprob] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.content or self.thinking or self.tool_calls or self.logprobs)


class Answer(ABC):
    """One answer. ``began_ns`` is the monotonic time at which its request came in."""

    chat: ClassVar[bool]

    def __init__(self, model: str, began_ns: int = 0, load_ns: int = 0) -> None:
        self._model = model
        self._began_ns = began_ns
        self._load_ns = load_ns
        self._encoder = ChunkEncoder(model, chat=self.chat)

    def lines(self, deltas: list[wire.Delta]) -> bytes:
        """The stream's lines for some deltas: each one's text, if it has any, and the end."""
        now = times.now()
        lines = [self._chunk(delta, now) for delta in deltas]
        if (done := deltas[-1].done) is not None:
            lines += self._end(Piece(), done), b"\n"
        return b"".join(lines)

    def body(self, deltas: list[wire.Delta]) -> bytes:
        """All of the answer in one body."""
        piece = Piece(
            content="".join(d.content for d in deltas),
            thinking="".join(d.thinking for d in deltas),
            tool_calls=[call for d in deltas for call in d.tool_calls],
            logprobs=[item for d in deltas for item in d.logprobs],
        )
        done = deltas[-1].done if deltas else None
        assert done is not None, "an answer ends with its counts or an error"
        return self._end(piece, done)

    def control(self, reason: str) -> bytes:
        """The reply to a request without a prompt: ``load`` or ``unload``."""
        return self._encode(Piece(), done=True, done_reason=reason)

    @abstractmethod
    def debug(self, rendered: wire.Rendered) -> bytes:
        """The reply to ``_debug_render_only``."""

    @abstractmethod
    def _encode(self, piece: Piece, **members: Any) -> bytes:
        """Ollama's reply struct with this piece and these further members."""

    def _chunk(self, delta: wire.Delta, now: str) -> bytes:
        if not (delta.thinking or delta.tool_calls or delta.logprobs):
            return self._encoder.text(now, delta.content) if delta.content else b""
        piece = Piece(delta.content, delta.thinking, delta.tool_calls, delta.logprobs)
        return self._encode(piece, done=False) + b"\n"

    def _end(self, piece: Piece, done: wire.Done) -> bytes:
        return self._encode(
            piece,
            done=True,
            done_reason=done.reason,
            # Clients divide by these, so none is zero.
            total_duration=max(time.monotonic_ns() - self._began_ns, 1),
            load_duration=max(self._load_ns, 1),
            prompt_eval_count=done.prompt_tokens,
            prompt_eval_duration=max(done.prompt_ns, 1),
            eval_count=done.eval_tokens,
            eval_duration=max(done.eval_ns, 1),
            **self._context(done),
        )

    def _context(self, done: wire.Done) -> dict[str, Any]:
        return {}


class GenerateAnswer(Answer):
    chat = False

    def debug(self, rendered: wire.Rendered) -> bytes:
        info = DebugInfo(rendered.text, rendered.images)
        return self._encode(Piece(), done=False, debug_info=info)

    def _encode(self, piece: Piece, **members: Any) -> bytes:
        return goencode.encode(
            GenerateReply(
                model=self._model,
                created_at=times.now(),
                response=piece.content,
                thinking=piece.thinking,
                tool_calls=tool_calls(piece.tool_calls),
                logprobs=logprobs(piece.logprobs),
                **members,
            )
        )

    def _context(self, done: wire.Done) -> dict[str, Any]:
        return {"context": done.context}


class ChatAnswer(Answer):
    chat = True

    def debug(self, rendered: wire.Rendered) -> bytes:
        reply = ChatReply(
            model=self._model,
            created_at=times.now(),
            message=ReplyMessage(role="", content=""),
            done=False,
            debug_info=DebugInfo(rendered.text, rendered.images),
        )
        return goencode.encode(reply)

    def _encode(self, piece: Piece, **members: Any) -> bytes:
        return goencode.encode(
            ChatReply(
                model=self._model,
                created_at=times.now(),
                message=ReplyMessage(
                    role="assistant",
                    content=piece.content,
                    thinking=piece.thinking,
                    tool_calls=tool_calls(piece.tool_calls),
                ),
                logprobs=logprobs(piece.logprobs),
                **members,
            )
        )
