"""When each step was where on the assembly line: a ring of the last ones, and sums over all."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from dataclasses import dataclass

from lhama.daemon.wire.messages import GAP_BOUNDS, Counters, StepSpan
from lhama.plugins.backend import StepPlan, StepResult

KEPT = 4096
"""Steps the ring holds."""


@dataclass(slots=True)
class Span:
    """One step's times, in nanoseconds of ``time.monotonic_ns``; 0: it never came there."""

    step: int
    rows: int
    tokens: int
    prompt_tokens: int
    group: int
    prepare: int
    """The plan is begun."""
    prepared: int = 0
    enqueue: int = 0
    """``compute_current`` is called …"""
    enqueued: int = 0
    """… and returns."""
    wait: int = 0
    ready: int = 0
    """The result is read: sampling included."""
    committed: int = 0
    emitted: int = 0
    """Its news has been sent; emitting began when the step after it was enqueued."""
    device: int = 0
    """Time the device was busy with it."""
    gap: int = 0
    """Time the device stood idle before it, though there was work."""


class Spans:
    """Written by the pipeline's thread, read by any: a reader may see a step half written."""

    def __init__(self) -> None:
        self._ring: deque[Span] = deque(maxlen=KEPT)
        self._counters = Counters(gaps=[0] * (len(GAP_BOUNDS) + 1))
        self._device_end = 0

    def begin(self, plan: StepPlan, began: int) -> Span:
        """A step has been planned."""
        tokens = prompts = 0
        for row in plan.rows:
            tokens += row.size
            prompts += row.size if row.size > 1 else 0
        span = Span(plan.step, len(plan.rows), tokens, prompts, plan.group, began)
        self._ring.append(span)
        return span

    def end(self, span: Span, result: StepResult) -> None:
        """A step's result was read."""
        span.device = result.compute_ns
        span.gap = result.idle_ns if result.idle_ns >= 0 else self._idle_before(span)
        self._device_end = min(max(self._device_end, span.enqueue) + span.device, span.ready)
        total = self._counters
        total.steps += 1
        total.rows += span.rows
        total.tokens += len(result.rows)
        total.prompt_tokens += span.prompt_tokens
        total.device_ns += span.device
        total.gap_ns += span.gap
        total.gaps[bisect_left(GAP_BOUNDS, span.gap)] += 1

    def _idle_before(self, span: Span) -> int:
        """From the end of the step before to the beginning of this: less than the truth, as the
        device waits for a part of ``compute_current``, too."""
        return max(span.enqueue - self._device_end, 0) if self._device_end else 0

    def rest(self) -> None:
        """There is no work: what the device does now is no gap."""
        self._device_end = 0

    def counters(self) -> Counters:
        return self._counters

    def latest(self, count: int) -> list[StepSpan]:
        """The last ``count`` steps that were read, oldest first."""
        done = [span for span in list(self._ring)[-count:] if span.committed] if count else []
        return [
            StepSpan(
                s.step,
                s.rows,
                s.tokens,
                s.prompt_tokens,
                [
                    s.prepare,
                    s.prepared,
                    s.enqueue,
                    s.enqueued,
                    s.wait,
                    s.ready,
                    s.committed,
                    s.emitted,
                ],
                s.device,
                s.gap,
                s.group,
            )
            for s in done
        ]
