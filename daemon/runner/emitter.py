"""Turns a step's news into one frame for the daemon."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from collections.abc import Sequence as Items

from lhama.daemon.errors import LhamaError
from lhama.daemon.runner.answer import add, join
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
        deltas: dict[int, list[Delta]] = {}
        failures: dict[int, str] = {}
        for item in news:
            request_id = item.sequence.request.id
            if request_id in failures:
                continue
            if item.error:
                failures[request_id] = item.error
                continue
            try:
                for delta in self._say(item, stopped):
                    add(deltas.setdefault(request_id, []), delta)
            except Exception as problem:
                stopped(item.sequence)
                deltas.pop(request_id, None)
                expected = isinstance(problem, LhamaError)
                failures[request_id] = str(problem) if expected else _unreadable(problem)
        if deltas:
            self._send_frame(deltas, news, failures, stopped)
        for request_id, failure in failures.items():
            self._send(Failed(request_id, failure))

    def _say(self, item: News, stopped: Callable[[Sequence], None]) -> Iterator[Delta]:
        """What one token, or the end, has the client know."""
        sequence, answer = item.sequence, item.sequence.request.answer
        if answer.ended():
            return  # its end was sent; this token came after it
        if item.row is not None:
            delta = answer.feed(item.row)
            if delta is not None:
                yield delta
            if not answer.ended():
                return
            stopped(sequence)
        rest = answer.flush()
        end = Delta(answer.id, done=done(sequence, answer.ended() or item.end))
        yield end if rest is None else join(rest, end)

    def _send_frame(
        self,
        deltas: dict[int, list[Delta]],
        news: Items[News],
        failures: dict[int, str],
        stopped: Callable[[Sequence], None],
    ) -> None:
        try:
            self._send(Step([delta for said in deltas.values() for delta in said]))
            return
        except codec.Unsendable:
            pass  # what a model says may not fit the wire: find out whose it is
        sequences = {item.sequence.request.id: item.sequence for item in news}
        for request_id, said in deltas.items():
            try:
                self._send(Step(said))
            except codec.Unsendable as problem:
                stopped(sequences[request_id])
                failures[request_id] = _unreadable(problem)


def _unreadable(error: Exception) -> str:
    traceback.print_exception(error)
    return f"the answer is unreadable: {error}"


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
