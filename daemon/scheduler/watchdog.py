"""Notices a runner that lives and does nothing: its engine hangs, or the whole process stands."""

from __future__ import annotations

from lhama.daemon import durations
from lhama.daemon.durations import Duration
from lhama.daemon.wire.messages import Pong

PINGS = 10
"""Pings in the time a runner may take for one step."""

SILENT = 2
"""Intervals without any answer after which a runner counts as dead: pings are answered beside the
engine's work, so a fifth of a step's time is patience enough."""


class Watchdog:
    """Judges one runner by what it answers to pings.

    Time is counted in pings, one each ``interval`` seconds: a daemon that was itself suspended
    has sent none meanwhile, and blames nobody.
    """

    def __init__(self, patience: Duration) -> None:
        """``patience``: how long one step may take."""
        self.interval = patience / PINGS / durations.SECOND
        self._patience = patience
        self._unanswered = 0
        self._standing = 0
        self._progress = -1
        self._active = False

    def wants_ping(self, requests: bool) -> bool:
        """Whether the runner has work: requests of ours, or more than it should have."""
        if requests or self._active:
            return True
        self._unanswered = self._standing = 0
        return False

    def pinged(self) -> str:
        """Count a ping that was just sent. What is wrong by now; empty: nothing."""
        self._unanswered += 1
        if self._unanswered > SILENT:
            silence = durations.render(self._patience * SILENT // PINGS)
            return f"has stopped responding: no answer for {silence}"
        if self._standing >= PINGS:
            return f"is stuck: no step was finished for {durations.render(self._patience)}"
        return ""

    @property
    def doubt(self) -> str:
        """What looks wrong before it is certain; empty: nothing."""
        if self._unanswered > 1:
            return f"does not answer: {self._unanswered - 1} pings"
        if self._standing > 1:
            return f"finishes no step: {durations.render(self._standing * self._patience // PINGS)}"
        return ""

    def heard(self) -> None:
        """The runner said something: it lives."""
        self._unanswered = 0

    def answered(self, pong: Pong) -> None:
        """Take in what the runner says of its work."""
        self._active = pong.active > 0
        moved = pong.progress != self._progress or not self._active
        self._standing = 0 if moved else self._standing + 1
        self._progress = pong.progress
