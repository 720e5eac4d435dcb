"""A runner's spans as bars on one clock: what the core does, and what the device does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from lhama.daemon.wire.messages import StepSpan

Kind = Literal["prepare", "enqueue", "compute", "wait", "commit", "emit"]


@dataclass(frozen=True)
class Bar:
    """A piece of work; times in nanoseconds from the timeline's beginning."""

    kind: Kind
    step: int
    start: int
    end: int
    rows: int
    tokens: int
    group: int


@dataclass(frozen=True)
class Timeline:
    """Steps in the order they were computed."""

    bars: list[Bar]
    gap_share: float
    """Of the time the device was busy or should have been, what it stood idle."""

    @classmethod
    def of(cls, spans: Sequence[StepSpan]) -> Timeline:
        """``spans`` as the runner sent them.

        The device works on a step from its enqueuing, or from the end of the group's step before if
        that is later: it takes them in order. Emitting step N begins when N+1 is under way.
        """
        zero = spans[0].times[0]
        bars: list[Bar] = []
        free: dict[int, int] = {}
        for span, following in zip(spans, [*spans[1:], None], strict=True):
            prepare, prepared, enqueue, enqueued, wait, ready, committed, emitted = span.times
            busy = max(free.get(span.group, 0), enqueue)
            free[span.group] = busy + span.device_ns
            spoken = committed
            if following is not None and following.step == span.step + 1:
                spoken = max(committed, min(following.times[3], emitted))
            pieces: tuple[tuple[Kind, int, int], ...] = (
                ("prepare", prepare, prepared),
                ("enqueue", enqueue, enqueued),
                ("compute", busy, free[span.group]),
                ("wait", wait, ready),
                ("commit", ready, committed),
                ("emit", spoken, emitted),
            )
            bars += [
                Bar(kind, span.step, start - zero, end - zero, span.rows, span.tokens, span.group)
                for kind, start, end in pieces
                if end > start
            ]
        device = sum(span.device_ns for span in spans)
        gaps = sum(span.gap_ns for span in spans)
        return cls(bars, gaps / (device + gaps) if device + gaps else 0.0)
