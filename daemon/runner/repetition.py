"""Ends an answer that says the same over and over, as Ollama does."""

from __future__ import annotations

MOST = 30
"""Pieces like the one before them, white space around them aside, that an answer may have in a row."""


class Repetition:
    """Counts equal pieces of text, one for each token."""

    def __init__(self) -> None:
        self._last = ""
        self._times = 0

    def feed(self, text: str) -> bool:
        """Add what one token gave to send; whether it is one too many."""
        text = text.strip()
        self._times = self._times + 1 if text == self._last else 0
        self._last = text
        return self._times > MOST
