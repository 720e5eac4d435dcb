"""The line of a model that runs elsewhere: questions go out, pieces of text come back.

There are no steps to prepare. One thread owns all requests and reads one inbox: what the daemon
wants, and what the engine's threads have heard.
"""

from __future__ import annotations

import queue
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic, monotonic_ns

from lhama.daemon.runner.answer import add
from lhama.daemon.runner.failure import failure
from lhama.daemon.runner.pipeline import Arranged, Cancelled
from lhama.daemon.wire import codec
from lhama.daemon.wire.messages import (
    Counters,
    Delta,
    Done,
    Failed,
    FromRunner,
    Observe,
    Observed,
    Step,
    TokenLogprob,
    ToolCall,
)
from lhama.plugins.text import Cancel, End, Piece, Question, TextEngine, TextError

Send = Callable[[FromRunner], None]


@dataclass(slots=True)
class TextQuestion:
    """One client's question."""

    id: int
    question: Question
    cancel: Cancel | None = None
    """Once it is asked."""
    asked_ns: int = 0
    began_ns: int = 0
    """When the first piece came."""
    calls: int = 0


@dataclass(frozen=True, slots=True)
class _Heard:
    id: int
    news: Piece | End | TextError


Inbox = queue.SimpleQueue[TextQuestion | _Heard | Cancelled | Arranged | None]


class TextLine:
    """Runs until closed. One thread runs it; everything else reaches it by ``inbox``."""

    def __init__(self, engine: TextEngine, send: Send) -> None:
        self.inbox: Inbox = queue.SimpleQueue()
        self._engine = engine
        self._send = send
        self._waiting: deque[TextQuestion] = deque()
        self._asked: dict[int, TextQuestion] = {}
        self._counters = Counters()
        self._deltas: dict[int, list[Delta]] = {}

    @property
    def progress(self) -> int:
        """Always on: one server's silence is no hang, and the engine has a time limit for it."""
        return int(monotonic() * 1000)

    @property
    def active(self) -> int:
        """Requests taken in and not answered."""
        return len(self._asked) + len(self._waiting)

    def observed(self, request: Observe) -> Observed:
        """What the line has done so far; there are no steps to show."""
        running, waiting = len(self._asked), len(self._waiting)
        return Observed(request.id, monotonic_ns(), "off", "", running, waiting, self._counters, [])

    def run(self) -> None:
        """Run until closed; what is not answered then is cancelled."""
        while (event := self.inbox.get()) is not None:
            self._take(event)
            if self.inbox.empty():  # what came together is sent together
                self._flush()
        for question in self._asked.values():
            assert question.cancel is not None
            question.cancel()

    def _take(self, event: TextQuestion | _Heard | Cancelled | Arranged) -> None:
        match event:
            case TextQuestion():
                self._waiting.append(event)
            case Cancelled(request_id):
                self._cancel(request_id)
            case _Heard(request_id, news):
                question = self._asked.get(request_id)
                if question is not None:
                    self._hear(question, news)
        while self._waiting and len(self._asked) < self._engine.slots:
            self._ask(self._waiting.popleft())

    def _ask(self, question: TextQuestion) -> None:
        request_id = question.id
        question.asked_ns = monotonic_ns()
        try:
            question.cancel = self._engine.start(
                question.question, lambda news: self.inbox.put(_Heard(request_id, news))
            )
        except Exception as error:  # this request's trouble alone
            self._send(failure(request_id, error))
        else:
            self._asked[request_id] = question

    def _cancel(self, request_id: int) -> None:
        self._deltas.pop(request_id, None)
        question = self._asked.pop(request_id, None)
        if question is None:
            self._waiting = deque(other for other in self._waiting if other.id != request_id)
        else:
            assert question.cancel is not None
            question.cancel()

    def _hear(self, question: TextQuestion, news: Piece | End | TextError) -> None:
        now = monotonic_ns()
        question.began_ns = question.began_ns or now
        match news:
            case Piece():
                self._add(self._delta(question, news))
            case End():
                del self._asked[question.id]
                self._counters.tokens += news.tokens
                self._counters.prompt_tokens += news.prompt_tokens
                self._add(Delta(question.id, done=_done(question, news, now)))
            case TextError():
                del self._asked[question.id]
                self._flush()
                self._send(failure(question.id, news))

    def _delta(self, question: TextQuestion, piece: Piece) -> Delta:
        calls = [
            ToolCall(call.name, dict(call.arguments), question.calls + n, call.id)
            for n, call in enumerate(piece.calls)
        ]
        question.calls += len(calls)
        logprobs = [TokenLogprob(one.token, one.logprob, list(one.top)) for one in piece.logprobs]
        return Delta(question.id, piece.content, piece.thinking, calls, logprobs)

    def _add(self, delta: Delta) -> None:
        add(self._deltas.setdefault(delta.id, []), delta)

    def _flush(self) -> None:
        deltas, self._deltas = self._deltas, {}
        if not deltas:
            return
        try:
            self._send(Step([delta for said in deltas.values() for delta in said]))
        except codec.Unsendable:  # what a server says may not fit the wire: find out whose it is
            for request_id, said in deltas.items():
                self._send_alone(request_id, said)

    def _send_alone(self, request_id: int, said: list[Delta]) -> None:
        try:
            self._send(Step(said))
        except codec.Unsendable as problem:
            self._cancel(request_id)
            self._send(Failed(request_id, f"the answer is unreadable: {problem}"))


def _done(question: TextQuestion, end: End, now: int) -> Done:
    return Done(
        end.reason,
        prompt_tokens=end.prompt_tokens,
        prompt_ns=question.began_ns - question.asked_ns,
        eval_tokens=end.tokens,
        eval_ns=now - question.began_ns,
        cached_tokens=end.cached_tokens,
    )
