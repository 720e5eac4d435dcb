"""Token bytes to text, never splitting a character."""

from __future__ import annotations

import codecs


class Detokenizer:
    """Incremental UTF-8: an unfinished character waits, invalid bytes become U+FFFD."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def feed(self, piece: bytes) -> str:
        return self._decoder.decode(piece)

    def finish(self) -> str:
        """Return what is left; an unfinished character becomes one U+FFFD."""
        return self._decoder.decode(b"", final=True)
