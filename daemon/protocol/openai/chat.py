"""Answers of ``/v1/chat/completions``: the chunks of a stream, or one completion."""

from __future__ import annotations

import time

from lhama.daemon.protocol import goencode, ids, sse
from lhama.daemon.protocol.answer import NOTHING, EventAnswer, Piece, only_text
from lhama.daemon.protocol.openai import errors, replies
from lhama.daemon.protocol.openai.replies import ChunkChoice, ChunkDelta
from lhama.daemon.protocol.openai.requests import ChatCompletionRequest
from lhama.daemon.protocol.replies import DebugInfo
from lhama.daemon.wire import messages as wire

END = b"data: [DONE]\n\n"

_BEFORE_TEXT = b'[{"index":0,"delta":{"content":'
_AFTER_TEXT = b'},"finish_reason":null}]}\n\n'


class ChatCompletionAnswer(EventAnswer):
    """The chunks of a stream share the id and time of its first, and only the first has a role."""

    def __init__(self, request: ChatCompletionRequest) -> None:
        super().__init__(request.model)
        self._id = ids.numbered("chatcmpl-")
        self._include_usage = bool(request.stream_options and request.stream_options.include_usage)
        self._called = False
        self._head = b""
        """A chunk up to its choices; empty until there was one."""

    # ------------------------------------------------------------------------------------ a stream

    def events(self, delta: wire.Delta) -> bytes:
        chunks = b""
        if self._head and only_text(delta):
            text = goencode.text(delta.content)
            chunks = b"%b%b%b%b" % (self._head, _BEFORE_TEXT, text, _AFTER_TEXT)
        elif (piece := Piece.of(delta)) or (delta.done and not self._head):
            chunks = self._content(piece)  # an empty answer has its role, too
        return chunks if delta.done is None else chunks + self._end(delta.done)

    def broken(self, status: int, message: str) -> bytes:
        return sse.unnamed(errors.envelope(status, message))

    def debug_event(self) -> bytes:
        return self._content(Piece())

    def _content(self, piece: Piece) -> bytes:
        """One chunk; two where thoughts and what follows them came together."""
        role = "" if self._head else "assistant"
        self._head = self._head or self._first_head()
        calls = replies.tool_calls(piece.tool_calls)
        self._called |= bool(calls)
        logprobs = replies.choice_logprobs(piece.logprobs)
        if not (piece.thinking and (piece.content or calls)):
            delta = ChunkDelta(role, piece.content, piece.thinking, calls)
            return self._chunk(ChunkChoice(0, delta, None, logprobs))
        thoughts = ChunkDelta(role, reasoning=piece.thinking)
        rest = ChunkDelta(content=piece.content, tool_calls=calls)
        first = self._chunk(ChunkChoice(0, thoughts, None, logprobs))
        return first + self._chunk(ChunkChoice(0, rest, None))

    def _end(self, done: wire.Done) -> bytes:
        reason = _finish_reason(done, called=self._called) or "stop"
        end = self._chunk(ChunkChoice(0, ChunkDelta(), reason))
        if self._include_usage:
            usage = goencode.encode(replies.usage(done))
            end += b'%b[],"usage":%b}\n\n' % (self._head, usage)
        return end + END

    def _chunk(self, choice: ChunkChoice) -> bytes:
        return b"%b%b}\n\n" % (self._head, goencode.encode([choice]))

    def _first_head(self) -> bytes:
        return (
            b'data: {"id":%b,"object":"chat.completion.chunk","created":%d,"model":%b,'
            b'"system_fingerprint":"%b","choices":'
        ) % (
            goencode.text(self._id),
            int(time.time()),
            goencode.text(self._model),
            replies.FINGERPRINT.encode(),
        )

    # -------------------------------------------------------------------------------------- whole

    def whole(self, piece: Piece, done: wire.Done) -> bytes:
        calls = replies.tool_calls(piece.tool_calls)
        message = replies.ReplyMessage("assistant", piece.content, piece.thinking, calls)
        reason = _finish_reason(done, called=bool(calls))
        logprobs = replies.choice_logprobs(piece.logprobs)
        return self._completion(replies.Choice(0, message, reason, logprobs), done)

    def debug(self, rendered: wire.Rendered) -> bytes:
        choice = replies.Choice(0, replies.ReplyMessage("", ""), None)
        return self._completion(choice, NOTHING, rendered)

    def _completion(
        self, choice: replies.Choice, done: wire.Done, rendered: wire.Rendered | None = None
    ) -> bytes:
        completion = replies.ChatCompletion(
            id=self._id,
            object="chat.completion",
            created=int(time.time()),
            model=self._model,
            system_fingerprint=replies.FINGERPRINT,
            choices=[choice],
            usage=replies.usage(done),
            debug_info=DebugInfo(rendered.text, rendered.images) if rendered else None,
        )
        return goencode.encode(completion) + b"\n"


def _finish_reason(done: wire.Done, *, called: bool) -> str | None:
    """``length`` stays what it is, calls or not."""
    return "tool_calls" if called and done.reason == "stop" else done.reason or None
