"""Finds stop strings in text that arrives token by token."""

from __future__ import annotations

from collections.abc import Sequence


class StopMatcher:
    """Holds text back while its end could still become a stop string."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = [stop for stop in stops if stop]
        self._held = ""
        self.matched = False

    def feed(self, text: str) -> str:
        """Return what may be sent now. Sets ``matched`` at the first stop string, which is cut."""
        if not self._stops:
            return text
        text = self._held + text
        at = min((i for i in map(text.find, self._stops) if i >= 0), default=-1)
        self.matched = at >= 0
        sent = text[:at] if self.matched else text
        # All of it waits, not only the doubtful end: llama.cpp's server cuts streams there.
        waits = not self.matched and any(_may_become(text, stop) for stop in self._stops)
        self._held = text if waits else ""
        return "" if waits else sent

    def finish(self) -> str:
        """Return what was held back: the answer ended before it became a stop string."""
        held, self._held = self._held, ""
        return held


def _may_become(text: str, stop: str) -> bool:
    """Whether an end of ``text`` begins ``stop``."""
    return any(text.endswith(stop[:length]) for length in range(1, min(len(text), len(stop)) + 1))
