"""A step on its way: in the caller's thread where decoding only enqueues, else in one of its own."""

from __future__ import annotations

import _thread
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from queue import SimpleQueue
from typing import TYPE_CHECKING

from lhama.backends.llamacpp.batch import Batch
from lhama.backends.llamacpp.context import Context
from lhama.backends.llamacpp.pool import SamplerPool
from lhama.backends.llamacpp.sampling import Sampler
from lhama.plugins.backend import BackendError, KvOp, Row, StepResult

if TYPE_CHECKING:
    from lhama.backends.llamacpp.media import MediaReader


class Step:
    """One step's work, in the order the contract gives: cache, admissions, rows."""

    __slots__ = (
        "_admitted",
        "_batch",
        "_context",
        "_kv",
        "_media",
        "_rows",
        "_samplers",
        "_started",
        "_tokens",
    )

    def __init__(
        self,
        context: Context,
        samplers: SamplerPool,
        batch: Batch,
        kv: Sequence[KvOp],
        admitted: Sequence[tuple[int, Sampler]],
        tokens: Sequence[int],
        media: Sequence[tuple[MediaReader, Row]] = (),
    ) -> None:
        """``admitted``: slots and what samples there from now on; ``tokens`` as for
        ``compute_current``, of the batch's rows; ``media``: rows that have none."""
        self._context = context
        self._samplers = samplers
        self._batch = batch
        self._kv = kv
        self._admitted = admitted
        self._tokens = tokens
        self._media = media
        self._rows: list[Row] = []
        self._started = 0

    def start(self) -> None:
        """Edit the cache, bind the tokens, decode."""
        for operation in self._kv:
            self._context.apply(operation)
        for slot, sampler in self._admitted:
            self._samplers.install(slot, sampler)
        self._rows = self._batch.bind(self._tokens)
        self._started = time.perf_counter_ns()
        for reader, row in self._media:
            self._context.compute_media(reader, row)
        if self._batch.struct.n_tokens:
            self._context.decode(self._batch)

    def finish(self, masks: Mapping[int, bytes]) -> StepResult:
        """Wait for the logits and sample them."""
        if not self._rows:
            self._context.synchronize()
            return StepResult((), time.perf_counter_ns() - self._started)
        logits = self._context.logits(len(self._rows))
        compute_ns = time.perf_counter_ns() - self._started
        results = self._samplers.sample(self._rows, logits, masks)
        for result in results:
            if result.error:
                self._context.condemn(result.slot)
        return StepResult(results, compute_ns)


class Enqueued:
    """A step that runs on the device by itself: the caller waits for it when it wants the result.

    No other thread means no handing over, which takes as long as some small models' steps wait.
    """

    __slots__ = ("_masks", "_step")

    def __init__(self, step: Step) -> None:
        self._step = step
        self._masks: Mapping[int, bytes] = {}
        step.start()

    def result(self) -> StepResult:
        return _in_words(lambda: self._step.finish(self._masks))

    def supply_masks(self, masks: Mapping[int, bytes]) -> None:
        self._masks = masks


class Threaded:
    """A step whose decoding blocks: the context's thread does it while the caller goes on."""

    __slots__ = ("_done", "_error", "_masked", "_masks", "_result", "_started", "_step")

    def __init__(self, step: Step, *, masked: bool) -> None:
        self._step = step
        # A bare lock wakes its waiter in half the time of an Event.
        self._done = _thread.allocate_lock()
        self._done.acquire()
        self._started = _thread.allocate_lock()
        self._started.acquire()
        self._masked = _thread.allocate_lock()
        self._masks: Mapping[int, bytes] = {}
        if masked:
            self._masked.acquire()
        self._result = StepResult(())
        self._error: BackendError | None = None

    def run(self) -> None:
        """Compute the step; on the context's thread."""
        self._started.release()
        try:
            self._result = _in_words(self._compute)
        except BackendError as error:
            self._error = error
        finally:
            self._done.release()

    def _compute(self) -> StepResult:
        self._step.start()
        with self._masked:
            return self._step.finish(self._masks)

    def wait_for_start(self) -> None:
        """Give the interpreter to the context's thread, which lets go of it to compute.

        Else it would have to wait for it until the caller is done preparing the next step.
        """
        self._started.acquire()

    def result(self) -> StepResult:
        self._done.acquire()
        if self._error is not None:
            raise self._error
        return self._result

    def supply_masks(self, masks: Mapping[int, bytes]) -> None:
        self._masks = masks
        self._masked.release()


class ContextThread:
    """A thread that runs what it is given, in order."""

    def __init__(self) -> None:
        self._queue: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._serve, name="llama-context", daemon=True)
        self._thread.start()

    def put(self, work: Callable[[], None]) -> None:
        self._queue.put(work)

    def _serve(self) -> None:
        while (work := self._queue.get()) is not None:
            work()

    def close(self) -> None:
        """Return when everything put before is done."""
        self._queue.put(None)
        self._thread.join()


def _in_words(compute: Callable[[], StepResult]) -> StepResult:
    """``compute()``, any error of it as a ``BackendError``."""
    try:
        return compute()
    except BackendError:
        raise
    except Exception as error:
        raise BackendError(f"llama.cpp backend: {error!r}") from error
