"""The embedding models' assembly line: while one step of texts computes, the next is tokenized.

A step takes texts of all requests in turn, so that a thousand texts of one client do not make
another one wait for more than a step.
"""

from __future__ import annotations

import queue
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from time import monotonic_ns

from lhama.daemon.runner.failure import failure
from lhama.daemon.runner.pipeline import Cancelled
from lhama.daemon.runner.texts import TextTokens
from lhama.daemon.wire.messages import Counters, Embedded, FromRunner, Observe, Observed
from lhama.plugins.backend import BackendError, EmbedHandle, Engine, EngineLost

Send = Callable[[FromRunner], None]


class TextRequest:
    """One client's texts on their way."""

    def __init__(self, request_id: int, texts: Iterator[TextTokens], count: int) -> None:
        """``texts`` yields each of ``count`` texts, or raises ``RunnerFailed``."""
        self.id = request_id
        self.ended = False
        self._texts = texts
        self._ready: deque[TextTokens] = deque()
        self._untaken = count
        self._unanswered = count

    def peek(self, ahead: int = 0) -> TextTokens | None:
        """The next text but ``ahead``, tokenized now if it is not yet; ``None``: there is none."""
        while len(self._ready) <= ahead < self._untaken:
            self._ready.append(next(self._texts))
        return self._ready[ahead] if ahead < self._untaken else None

    def take(self) -> bool:
        """Count the next text as taken; whether there are more."""
        self._ready.popleft()
        self._untaken -= 1
        return self._untaken > 0

    def answered(self, count: int) -> bool:
        """Count texts as answered; whether those were the last."""
        self._unanswered -= count
        self.ended = self._unanswered == 0
        return self.ended


@dataclass(frozen=True, slots=True)
class Text:
    """One text of a step."""

    request: TextRequest
    tokens: list[int]
    cut: int


@dataclass(frozen=True, slots=True)
class Flight:
    """Texts the device works on."""

    texts: list[Text]
    handle: EmbedHandle | None
    """``None``: they could not be started together."""


Inbox = queue.SimpleQueue[TextRequest | Cancelled | None]
"""What other threads send; ``None`` closes the line."""

Outcome = bytes | Exception


class EmbeddingLine:
    """Runs steps until closed. One thread runs it; everything else reaches it by ``inbox``."""

    def __init__(self, engine: Engine, send: Send, *, overlapped: bool) -> None:
        """Without ``overlapped``, the sequential twin: nothing is done while a step computes."""
        self.inbox: Inbox = queue.SimpleQueue()
        self._engine = engine
        self._send = send
        self._overlapped = overlapped
        self._waiting: deque[TextRequest] = deque()
        """Requests with texts that no step has taken yet, the next one's first."""
        self._requests: dict[int, TextRequest] = {}
        self._closing = False
        self._steps = 0

    @property
    def progress(self) -> int:
        """Steps begun so far: what stands still when the engine hangs."""
        return self._steps

    @property
    def active(self) -> int:
        """Requests taken in and not answered."""
        return len(self._requests)

    def observed(self, request: Observe) -> Observed:
        """What the line has done so far; its steps leave no spans."""
        waiting = len(self._waiting)
        running = len(self._requests) - waiting
        order = "host" if self._overlapped else "off"
        counters = Counters(steps=self._steps)
        return Observed(request.id, monotonic_ns(), order, "", running, waiting, counters, [])

    def run(self) -> None:
        """Run until closed. A step in flight is finished first, so the engine may be closed."""
        flight: Flight | None = None
        while not self._closing or flight is not None:
            if self._overlapped:
                self._prepare()
            outcomes = self._finish(flight)
            if not self._overlapped:
                self._deliver(flight, outcomes)
            self._take_in(wait=flight is None and not self._waiting)
            following = self._start(self._gather())
            if self._overlapped:
                self._deliver(flight, outcomes)
            flight = following

    # ---------------------------------------------------------------------------------- the verbs

    def _prepare(self) -> None:
        """Tokenize what the next step will take if nobody else comes; who does is not too late
        for it, as texts are chosen when the device is free."""
        texts, room = self._engine.limits.slots, self._engine.limits.batch_tokens
        turns = deque((request, 0) for request in self._waiting)
        while turns and texts > 0 and room > 0:
            request, ahead = turns.popleft()
            text = self._peek(request, ahead)
            if text is not None:
                texts, room = texts - 1, room - len(text.tokens)
                turns.append((request, ahead + 1))

    def _peek(self, request: TextRequest, ahead: int = 0) -> TextTokens | None:
        """``None``: there is no such text, or it cannot be tokenized and its request has ended."""
        try:
            return request.peek(ahead)
        except Exception as error:  # this text's trouble is its request's alone
            self._fail(request, error)
            return None

    def _gather(self) -> list[Text]:
        """The next step's texts: one of each request in turn, as many as fit."""
        limits = self._engine.limits
        texts: list[Text] = []
        room = limits.batch_tokens
        while self._waiting and len(texts) < limits.slots and not self._closing:
            request = self._waiting[0]
            text = self._peek(request)
            if text is None:
                continue
            if texts and len(text.tokens) > room:
                break
            texts.append(Text(request, text.tokens, text.cut))
            room -= len(text.tokens)
            self._waiting.popleft()
            if request.take():
                self._waiting.append(request)
        return texts

    def _start(self, texts: list[Text]) -> Flight | None:
        if not texts:
            return None
        try:
            return Flight(texts, self._embed(texts))
        except Exception:
            return Flight(texts, None)

    def _finish(self, flight: Flight | None) -> list[Outcome]:
        """Wait for a step. One that fails is computed again text by text, so that what is wrong
        with one of them is not the others' trouble."""
        if flight is None:
            return []
        try:
            if flight.handle is not None:
                return _vectors(flight.handle.result(), len(flight.texts))
        except Exception as error:
            if len(flight.texts) == 1:
                return [error]
        return [self._alone(text) for text in flight.texts]

    def _alone(self, text: Text) -> Outcome:
        try:
            return _vectors(self._embed([text]).result(), 1)[0]
        except Exception as error:
            return error

    def _embed(self, texts: list[Text]) -> EmbedHandle:
        self._steps += 1
        return self._engine.embed([text.tokens for text in texts])

    def _deliver(self, flight: Flight | None, outcomes: list[Outcome]) -> None:
        """Send what a step gave, a frame for each request."""
        if flight is None:
            return
        found = sorted(
            zip(flight.texts, outcomes, strict=True), key=lambda pair: pair[0].request.id
        )
        for _, share in groupby(found, key=lambda pair: pair[0].request.id):
            texts, answers = zip(*share, strict=True)
            self._answer(texts[0].request, texts, answers)

    def _answer(
        self, request: TextRequest, texts: Sequence[Text], outcomes: Sequence[Outcome]
    ) -> None:
        if request.ended:
            return
        vectors = [outcome for outcome in outcomes if isinstance(outcome, bytes)]
        for outcome in outcomes:
            if isinstance(outcome, Exception):
                self._fail(request, outcome)
                return
        done = request.answered(len(vectors))
        tokens, cut = sum(len(text.tokens) for text in texts), sum(text.cut for text in texts)
        self._send(Embedded(request.id, vectors, tokens, done, cut))
        if done:
            del self._requests[request.id]

    def _fail(self, request: TextRequest, error: Exception) -> None:
        if isinstance(error, EngineLost):
            raise error
        self._send(failure(request.id, error))
        self._forget(request.id)

    # ---------------------------------------------------------------------------------- the inbox

    def _take_in(self, *, wait: bool) -> None:
        """Take everything that has come; ``wait`` until something does."""
        while wait or not self.inbox.empty():
            wait = False
            match self.inbox.get():
                case TextRequest() as request:
                    self._requests[request.id] = request
                    self._waiting.append(request)
                case Cancelled(request_id):
                    self._forget(request_id)
                case None:
                    self._closing = True
                    return

    def _forget(self, request_id: int) -> None:
        """End a request wherever it is."""
        request = self._requests.pop(request_id, None)
        if request is not None:
            request.ended = True
            self._waiting = deque(other for other in self._waiting if other is not request)


def _vectors(found: list[bytes], count: int) -> list[Outcome]:
    """What an engine gave for that many texts. Raises ``BackendError`` for anything else."""
    if len(found) != count or not all(isinstance(vector, bytes) for vector in found):
        raise BackendError(f"the backend gave no vector of bytes for each of {count} texts")
    return [*found]
