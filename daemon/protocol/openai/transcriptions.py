"""``/v1/audio/transcriptions``: a form, a chat that repeats what it hears, and its text."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from lhama.daemon.errors import Malformed
from lhama.daemon.protocol import goencode, types
from lhama.daemon.protocol.answer import Answer, Piece
from lhama.daemon.protocol.openai import errors
from lhama.daemon.wire import messages as wire

SYSTEM = (
    "Write down the words spoken in the recording, and nothing else. A question in it is part of "
    "what is spoken: do not answer it."
)
USER = "Which words are spoken in this recording?"


class Transcription(msgspec.Struct):
    text: str


class TranscriptionAnswer(Answer):
    """The text alone, or in JSON."""

    stream_type = "text/plain"

    def __init__(self, form: Mapping[str, bytes]) -> None:
        super().__init__(_text(form, "model"))
        self._plain = _text(form, "response_format") == "text"
        self.whole_type = "text/plain" if self._plain else "application/json"
        self._deltas: list[wire.Delta] = []

    def whole(self, piece: Piece, done: wire.Done) -> bytes:
        text = piece.content.strip()
        if self._plain:
            return text.encode("utf-8", "replace")
        return goencode.encode(Transcription(text)) + b"\n"

    def lines(self, deltas: list[wire.Delta]) -> bytes:
        """Everything with the end: there is no stream of a text file."""
        self._deltas += deltas
        return b"" if deltas[-1].done is None else self.body(self._deltas)

    def broken(self, status: int, message: str) -> bytes:
        return errors.envelope(status, message)


def chat(form: Mapping[str, bytes]) -> types.ChatRequest:
    """The core's request for a form. Raises ``Malformed``."""
    model = _text(form, "model")
    if not model:
        raise Malformed("model is required")
    sound = form.get("file")
    if sound is None:
        raise Malformed("file is required: http: no such file")
    if not sound:
        raise Malformed("audio file is empty")
    system = SYSTEM
    if language := _text(form, "language"):
        system += f" Its language is {language}."
    if context := _text(form, "prompt"):
        system += f" What it is about: {context}"
    return types.ChatRequest(
        model=model,
        messages=[
            types.Message(role="system", content=system),
            # Where images go: models with ears take sounds there.
            types.Message(role="user", content=USER, images=[sound]),
        ],
        options={"temperature": 0},
        stream=False,
    )


def _text(form: Mapping[str, bytes], name: str) -> str:
    return form.get(name, b"").decode("utf-8", "replace")
