"""Finds stop strings in text that arrives token by token."""

from __future__ import annotations

from collections.abc import Sequence


class StopMatcher:
    """Holds text back for as long as it could still become a stop string."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = [stop for stop in stops if stop]
        self._held = ""
        self.matched = False

    def feed(self, text: str) -> str:
        """Return what may be sent now. Sets ``matched`` at the first stop string, which is cut."""
        if not self._stops:
            return text
        self._held += text
        at = min((i for i in map(self._held.find, self._stops) if i >= 0), default=-1)
        if at >= 0:
            self.matched = True
            sent, self._held = self._held[:at], ""
            return sent
        keep = max(_overlap(self._held, stop) for stop in self._stops)
        sent, self._held = (
            self._held[: len(self._held) - keep],
            self._held[len(self._held) - keep :],
        )
        return sent

    def finish(self) -> str:
        """Return what was held back: the answer ended before it became a stop string."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of ``text`` that begins ``stop``."""
    for length in range(min(len(text), len(stop) - 1), 0, -1):
        if stop.startswith(text[-length:]):
            return length
    return 0
