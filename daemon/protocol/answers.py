"""Answers of the native API: NDJSON lines, or one JSON body."""

from __future__ import annotations

import time
from abc import abstractmethod
from typing import Any, ClassVar

import msgspec

from lhama.daemon.protocol import goencode, times
from lhama.daemon.protocol.answer import Answer, Piece, only_text
from lhama.daemon.protocol.replies import (
    ChatReply,
    ChunkEncoder,
    DebugInfo,
    GenerateReply,
    ReplyMessage,
    error_body,
    logprobs,
    tool_calls,
)
from lhama.daemon.wire import messages as wire


class NativeAnswer(Answer):
    """One answer. ``began_ns`` is the monotonic time at which its request came in."""

    stream_type = "application/x-ndjson"
    whole_type = "application/json; charset=utf-8"
    streams_controls = False
    chat: ClassVar[bool]

    def __init__(self, model: str, began_ns: int = 0, load_ns: int = 0) -> None:
        super().__init__(model)
        self._began_ns = began_ns
        self._load_ns = load_ns
        self._encoder = ChunkEncoder(model, chat=self.chat)

    def lines(self, deltas: list[wire.Delta]) -> bytes:
        """The last line carries what the end brought to light, log-probabilities aside."""
        now = times.now()
        lines = [self._chunk(delta, now) for delta in deltas if delta.done is None]
        if (done := deltas[-1].done) is not None:
            piece = Piece.of(deltas[-1])
            if piece.logprobs:
                lines.append(self._encode(Piece(logprobs=piece.logprobs), done=False) + b"\n")
                piece.logprobs = []
            lines += self._end(piece, done), b"\n"
        return b"".join(lines)

    def broken(self, status: int, message: str) -> bytes:
        return error_body(message) + b"\n"

    def whole(self, piece: Piece, done: wire.Done) -> bytes:
        return self._end(piece, done)

    def control(self, reason: str) -> bytes:
        return self._encode(Piece(), done=True, done_reason=reason)

    @abstractmethod
    def _encode(self, piece: Piece, **members: Any) -> bytes:
        """Ollama's reply struct with this piece and these further members."""

    def _chunk(self, delta: wire.Delta, now: str) -> bytes:
        if only_text(delta):
            return self._encoder.text(now, delta.content)
        piece = Piece.of(delta)
        return self._encode(piece, done=False) + b"\n" if piece else b""

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


class GenerateAnswer(NativeAnswer):
    """Calls come with the end, without ids: nobody declared tools here."""

    chat = False

    def __init__(self, model: str, began_ns: int = 0, load_ns: int = 0) -> None:
        super().__init__(model, began_ns, load_ns)
        self._calls: list[wire.ToolCall] = []

    def _chunk(self, delta: wire.Delta, now: str) -> bytes:
        if delta.tool_calls:
            self._calls += delta.tool_calls
            delta = msgspec.structs.replace(delta, tool_calls=[])
        return super()._chunk(delta, now)

    def _end(self, piece: Piece, done: wire.Done) -> bytes:
        calls = [*self._calls, *piece.tool_calls]
        piece.tool_calls = [msgspec.structs.replace(call, id="") for call in calls]
        return super()._end(piece, done)

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


class ChatAnswer(NativeAnswer):
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
