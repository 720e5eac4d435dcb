"""Answers of ``/v1/completions``: the chunks of a stream, or one completion. Of thoughts an empty
chunk is left."""

from __future__ import annotations

import time

from lhama.daemon.protocol import goencode, ids, sse
from lhama.daemon.protocol.answer import EventAnswer, Piece
from lhama.daemon.protocol.openai import errors, replies
from lhama.daemon.protocol.openai.chat import END
from lhama.daemon.protocol.openai.requests import CompletionRequest
from lhama.daemon.wire import messages as wire

_NO_USAGE = goencode.encode(replies.Usage(0, 0, 0))


class CompletionAnswer(EventAnswer):
    """The last chunk of text says why it ended; if usage was asked for, every chunk has some."""

    def __init__(self, request: CompletionRequest) -> None:
        super().__init__(request.model)
        self._id = ids.numbered("cmpl-")
        self._include_usage = bool(request.stream_options and request.stream_options.include_usage)
        self._head = b'data: {"id":%b,"object":"text_completion","created":' % goencode.text(
            self._id
        )
        model = goencode.text(self._model)
        self._foot = b',"model":%b,"system_fingerprint":"fp_ollama"' % model

    def events(self, delta: wire.Delta) -> bytes:
        chunk = self._text(delta.content, b"null") if Piece.of(delta) else b""
        if delta.done is None:
            return chunk
        end = chunk + self._text("", goencode.text(delta.done.reason))
        if self._include_usage:
            end += self._chunk(b"[]", goencode.encode(replies.usage(delta.done)))
        return end + END

    def broken(self, status: int, message: str) -> bytes:
        return sse.unnamed(errors.envelope(status, message))

    def debug_event(self) -> bytes:
        return self._text("", b"null")

    def _text(self, text: str, reason: bytes) -> bytes:
        encoded = goencode.text(text)
        choice = b'[{"text":%b,"index":0,"finish_reason":%b}]' % (encoded, reason)
        return self._chunk(choice, _NO_USAGE)

    def _chunk(self, choices: bytes, usage: bytes) -> bytes:
        tail = b',"usage":%b' % usage if self._include_usage else b""
        parts = (self._head, int(time.time()), choices, self._foot, tail)
        return b'%b%d,"choices":%b%b%b}\n\n' % parts

    def whole(self, piece: Piece, done: wire.Done) -> bytes:
        completion = replies.Completion(
            id=self._id,
            object="text_completion",
            created=int(time.time()),
            model=self._model,
            system_fingerprint=replies.FINGERPRINT,
            choices=[replies.TextChoice(piece.content, 0, done.reason or None)],
            usage=replies.usage(done),
        )
        return goencode.encode(completion) + b"\n"
