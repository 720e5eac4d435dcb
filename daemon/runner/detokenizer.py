"""Token bytes to text, never splitting a character."""

from __future__ import annotations

import codecs


class Detokenizer:
    """Incremental UTF-8: text that ends within a character waits, invalid bytes become U+FFFD."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._held = ""

    def feed(self, piece: bytes) -> str:
        """Add a token's bytes; all text since the last call that gave any, or nothing yet."""
        text = self._held + self._decoder.decode(piece)
        unfinished = bool(self._decoder.getstate()[0])
        self._held = text if unfinished else ""
        return "" if unfinished else text

    def finish(self) -> str:
        """Return what is left, but for half a character: it will never be whole."""
        held, self._held = self._held, ""
        return held
