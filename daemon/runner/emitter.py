"""Turns a step's news into one frame for the daemon."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Items

from lhama.daemon.runner.answer import join
from lhama.daemon.runner.batcher import News
from lhama.daemon.runner.sequence import Sequence
from lhama.daemon.wire.messages import Delta, Done, Failed, FromRunner, Step


class Emitter:
    """Writes deltas; finds the stops that only the text shows."""

    def __init__(self, send: Callable[[FromRunner], None]) -> None:
        self._send = send

    def emit(self, news: Items[News], stopped: Callable[[Sequence], None]) -> None:
        """Send all of a step's deltas in one frame; call ``stopped`` where a stop string ended
        a sequence (a late stop: its next row is already on the way)."""
        deltas: list[Delta] = []
        failures: list[Failed] = []
        for item in news:
            answer = item.sequence.request.answer
            if item.error:
                failures.append(Failed(answer.id, item.error))
            elif answer.stopped():
                continue  # its end was sent; this token came after it
            elif item.row is not None:
                _append(deltas, answer.feed(item.row))
                if answer.stopped():
                    stopped(item.sequence)
                    self._end(deltas, item.sequence, "stop")
            else:
                self._end(deltas, item.sequence, item.end)
        if deltas:
            self._send(Step(deltas))
        for failure in failures:
            self._send(failure)

    def _end(self, deltas: list[Delta], sequence: Sequence, reason: str) -> None:
        answer = sequence.request.answer
        _append(deltas, answer.flush())
        deltas.append(Delta(answer.id, done=done(sequence, reason)))


def done(sequence: Sequence, reason: str) -> Done:
    """The statistics of an ended sequence."""
    return Done(
        reason,
        prompt_tokens=sequence.prompt_tokens,
        prompt_ns=sequence.prompt_ns(),
        eval_tokens=sequence.generated,
        eval_ns=sequence.eval_ns(),
        context=sequence.request.answer.context(),
        cached_tokens=sequence.cached_tokens,
    )


def _append(deltas: list[Delta], delta: Delta | None) -> None:
    """Add a delta, joined to the same request's one before it."""
    if delta is None:
        return
    if deltas and deltas[-1].id == delta.id and deltas[-1].done is None:
        deltas[-1] = join(deltas[-1], delta)
    else:
        deltas.append(delta)
