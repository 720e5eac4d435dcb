"""The assembly line: while the device computes one step, the next one is prepared.

Three orders of the same four verbs (plan and prepare, compute, commit, emit). All give the same
tokens; ``off`` is the plain twin that the other two are checked against.

    off     prepare 1 · compute 1 · commit 1 · emit 1 · prepare 2 · compute 2 · …
    host    prepare 2 while 1 computes · commit 1 · compute 2 · emit 1 while 2 computes · …
    device  prepare 2 and enqueue it while 1 computes · commit 1 and emit 1 while 2 computes · …
"""

from __future__ import annotations

import queue
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic_ns

from lhama.daemon.runner.batcher import Batcher
from lhama.daemon.runner.emitter import Emitter
from lhama.daemon.runner.sequence import Submission
from lhama.daemon.runner.spans import Span, Spans
from lhama.daemon.runner.trial import Order, Trial
from lhama.daemon.wire.messages import Observe, Observed
from lhama.plugins.backend import DROPPED, Engine, EngineLost, PreparedStep, StepHandle, StepPlan


@dataclass(frozen=True, slots=True)
class Draft:
    """A step that is prepared and not started."""

    plan: StepPlan
    prepared: PreparedStep
    span: Span


@dataclass(frozen=True, slots=True)
class Flight:
    """A step the device works on."""

    plan: StepPlan
    prepared: PreparedStep
    span: Span
    handle: StepHandle


@dataclass(frozen=True, slots=True)
class Cancelled:
    id: int


@dataclass(frozen=True, slots=True)
class Arranged:
    """Somebody wants another order: ``auto``, ``on`` or ``off``."""

    pipeline: str


Inbox = queue.SimpleQueue[Submission | Cancelled | Arranged | None]
"""What other threads send the pipeline; ``None`` closes it."""


class Pipeline:
    """Runs steps until closed. One thread runs it; everything else reaches it by ``inbox``.

    To read it, begin with ``run``: each turn of its loop is one call of an order, which takes the
    step in flight and returns the next one. The orders are made of the verbs below them.

    ``trial``, if given, chooses between ``order`` and ``off`` by what the first steps take, unless
    somebody arranges otherwise.
    """

    def __init__(
        self,
        engine: Engine,
        batcher: Batcher,
        emitter: Emitter,
        order: Order,
        trial: Trial | None = None,
    ) -> None:
        self.inbox: Inbox = queue.SimpleQueue()
        self.order = order
        """In use now."""
        self.trial = trial
        self._usual = order
        self._arranged: Order | None = None
        self.spans = Spans()
        self._engine = engine
        self._batcher = batcher
        self._emitter = emitter
        self._closing = False
        self._orders: dict[Order, Callable[[Flight | None], Flight | None]] = {
            "device": self._device,
            "host": self._host,
            "off": self._off,
        }
        self._last_commit = 0
        self._last_group = -1

    @property
    def progress(self) -> int:
        """Steps begun so far: what stands still when the engine hangs."""
        return self._batcher.steps

    @property
    def active(self) -> int:
        """Requests taken in and not answered."""
        return self._batcher.active

    def observed(self, request: Observe) -> Observed:
        """What the line has done so far; read from another thread."""
        return Observed(
            request.id,
            monotonic_ns(),
            self.order,
            self.trial.verdict if self.trial is not None else "",
            self._batcher.running,
            self._batcher.waiting,
            self.spans.counters(),
            self.spans.latest(request.steps),
        )

    def run(self) -> None:
        """Run until closed. A step in flight is finished first, so the engine may be closed."""
        flight: Flight | None = None
        while not self._closing or flight is not None:
            self._take_in(wait=flight is None and self._batcher.idle)
            flight = self._orders[self.order](flight)
            if flight is None:
                self.order = self._wanted

    @property
    def _wanted(self) -> Order:
        """The order to use."""
        if self._arranged is not None:
            return self._arranged
        return self._usual if self.trial is None else self.trial.order

    @property
    def _draining(self) -> bool:
        """Whether the step in flight is the last, or the last of its order."""
        return self._closing or self._wanted != self.order

    def _arrange(self, pipeline: str) -> None:
        overlapped = self._engine.limits.token_feed
        chosen: dict[str, Order | None] = {"on": overlapped, "off": "off"}
        self._arranged = chosen.get(pipeline)

    # --------------------------------------------------------------------------------- the orders

    def _off(self, flight: Flight | None) -> None:
        """The sequential twin: nothing is in flight between two calls."""
        flight = self._compute(self._prepare(None))
        self._mask(flight)
        self._commit(flight)
        self._emit(flight)

    def _host(self, flight: Flight | None) -> Flight | None:
        """The core passes tokens on: prepare N+1, wait for N, bind its tokens, start N+1.

        A step of another group of slots needs nothing of N: it starts before N's result is read.
        """
        draft = self._prepare(flight)
        if flight is not None and draft is not None and draft.plan.group != flight.plan.group:
            following = self._compute(draft)
            self._commit(flight)
        else:
            self._commit(flight)
            following = self._compute(draft)
        self._mask(following)
        self._emit(flight)
        return following

    def _device(self, flight: Flight | None) -> Flight | None:
        """The device passes tokens on: N+1 is enqueued before N's result is read."""
        following = self._compute(self._prepare(flight))
        self._commit(flight)
        self._mask(following)
        self._emit(flight)
        return following

    # ---------------------------------------------------------------------------------- the verbs

    def _prepare(self, flight: Flight | None) -> Draft | None:
        """Plan and build the next step on the CPU; ``None`` if there is nothing to compute."""
        if self._draining:
            return None
        began = monotonic_ns()
        plan = self._batcher.plan(flight.plan.group if flight is not None else self._last_group)
        if plan is None:
            return None
        span = self.spans.begin(plan, began)
        try:
            prepared = self._engine.prepare_next(plan, flight.prepared if flight else None)
        except Exception as error:
            self._fail(plan, error)
            return None
        span.prepared = monotonic_ns()
        return Draft(plan, prepared, span)

    def _compute(self, draft: Draft | None) -> Flight | None:
        """Start a prepared step, unless everything in it has ended meanwhile."""
        if draft is None:
            return None
        plan, span = draft.plan, draft.span
        try:
            tokens = self._batcher.tokens_for(plan)
            if not plan.kv and all(token == DROPPED for token in tokens):
                return None
            span.enqueue = monotonic_ns()
            handle = self._engine.compute_current(draft.prepared, tokens)
            span.enqueued = monotonic_ns()
            return Flight(plan, draft.prepared, span, handle)
        except Exception as error:
            self._fail(plan, error)
            return None

    def _commit(self, flight: Flight | None) -> None:
        """Wait for a step and take in its results."""
        if flight is None:
            return
        span = flight.span
        span.wait = monotonic_ns()
        try:
            result = flight.handle.result()
            span.ready = monotonic_ns()
            self._batcher.commit(flight.plan, result)
            span.committed = monotonic_ns()
            self.spans.end(span, result)
        except Exception as error:  # of the step, or of a result that is none
            self._fail(flight.plan, error)
            return
        self._last_group = flight.plan.group
        measured = self._last_commit and not span.prompt_tokens and self._arranged is None
        if self.trial is not None and measured:
            self.trial.took(span.rows, span.committed - self._last_commit)
        self._last_commit = span.committed

    def _mask(self, flight: Flight | None) -> None:
        """Late masks: the forward pass runs while the grammars look at the last token."""
        if flight is not None and any(row.masked for row in flight.plan.rows):
            flight.handle.supply_masks(self._batcher.masks_for(flight.plan))

    def _emit(self, flight: Flight | None) -> None:
        """Turn what was committed into text and send it, while the device computes."""
        self._emitter.emit(self._batcher.take_news(), self._batcher.stopped)
        if flight is not None:
            flight.span.emitted = monotonic_ns()

    def _fail(self, plan: StepPlan, error: Exception) -> None:
        if isinstance(error, EngineLost):
            raise error
        traceback.print_exception(error)
        self._batcher.fail_step(plan, str(error) or type(error).__name__)

    # ---------------------------------------------------------------------------------- the inbox

    def _take_in(self, *, wait: bool) -> None:
        """Take everything that has come; ``wait`` until something does."""
        if wait:
            self.spans.rest()
            self._last_commit = 0
        while wait or not self.inbox.empty():
            wait = False
            match self.inbox.get():
                case Submission() as request:
                    self._batcher.submit(request)
                case Cancelled(request_id):
                    self._batcher.cancel(request_id)
                case Arranged(pipeline):
                    self._arrange(pipeline)
                case None:
                    self._closing = True
                    return
