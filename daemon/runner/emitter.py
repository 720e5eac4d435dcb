"""Turns a step's news into one frame for the daemon."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from collections.abc import Sequence as Items

from lhama.daemon.runner.answer import join
from lhama.daemon.runner.batcher import News
from lhama.daemon.runner.sequence import Sequence
from lhama.daemon.wire import codec
from lhama.daemon.wire.messages import Delta, Done, Failed, FromRunner, Step


class Emitter:
    """Writes deltas; finds the stops that only the text shows."""

    def __init__(self, send: Callable[[FromRunner], None]) -> None:
        self._send = send

    def emit(self, news: Items[News], stopped: Callable[[Sequence], None]) -> None:
        """Send all of a step's deltas in one frame; call ``stopped`` where a stop string ended
        a sequence (a late stop: its next row is already on the way).

        Whatever goes wrong with one request's text ends that request and no other.
        """
        frame: dict[int, list[Delta]] = {}
        failures: dict[int, Failed] = {}
        for item in news:
            request_id = item.sequence.request.id
            if request_id in failures:
                continue
            try:
                deltas = frame.setdefault(request_id, [])
                if item.error:
                    failures[request_id] = Failed(request_id, item.error)
                else:
                    self._add(deltas, item, stopped)
                    codec.encode(Step(deltas))  # what a model says may not fit the wire
            except Exception as error:
                traceback.print_exception(error)
                stopped(item.sequence)
                frame.pop(request_id, None)
                failures[request_id] = Failed(request_id, f"the answer is unreadable: {error}")
        if any(frame.values()):
            self._send(Step([delta for deltas in frame.values() for delta in deltas]))
        for failure in failures.values():
            self._send(failure)

    def _add(self, deltas: list[Delta], item: News, stopped: Callable[[Sequence], None]) -> None:
        answer = item.sequence.request.answer
        if answer.stopped():
            return  # its end was sent; this token came after it
        if item.row is None:
            self._end(deltas, item.sequence, item.end)
            return
        _append(deltas, answer.feed(item.row))
        if answer.stopped():
            stopped(item.sequence)
            self._end(deltas, item.sequence, "stop")

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
        truncated_tokens=sequence.request.answer.truncated_tokens,
    )


def _append(deltas: list[Delta], delta: Delta | None) -> None:
    """Add a delta, joined to the same request's one before it."""
    if delta is None:
        return
    if deltas and deltas[-1].id == delta.id and deltas[-1].done is None:
        deltas[-1] = join(deltas[-1], delta)
    else:
        deltas.append(delta)
