"""One loaded model: batches are prepared here, a thread of its own computes and samples them."""

from __future__ import annotations

import _thread
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from typing import TYPE_CHECKING

from lhama.backends.llamacpp.batch import Batch
from lhama.backends.llamacpp.context import Context
from lhama.backends.llamacpp.sampling import RowError, Sampler
from lhama.backends.llamacpp.tokenizer import LlamaTokenizer
from lhama.plugins.backend import (
    BackendError,
    EmbedHandle,
    Limits,
    PreparedStep,
    Residency,
    Row,
    RowResult,
    StepPlan,
    StepResult,
)

if TYPE_CHECKING:
    from lhama.backends.llamacpp.sampling import Logits


@dataclass(frozen=True, slots=True)
class Prepared:
    """A step without its pending tokens."""

    plan: StepPlan
    batch: Batch
    samplers: tuple[tuple[int, Sampler], ...]
    """What the plan's admissions put into which slot."""
    masked: bool


class Handle:
    """A step on its way through the context's thread."""

    __slots__ = ("_compute", "_done", "_error", "_masked", "_masks", "_result", "_started")

    def __init__(self, compute: Callable[[Handle], StepResult], masked: bool) -> None:
        self._compute = compute
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
            self._result = self._compute(self)
        except BackendError as error:
            self._error = error
        except Exception as error:
            self._error = BackendError(f"llama.cpp backend: {error!r}")
            self._error.__cause__ = error
        finally:
            self._done.release()

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

    def masks(self) -> Mapping[int, bytes]:
        """Wait for the masks of a plan that has masked rows."""
        with self._masked:
            return self._masks


class LlamaCppEngine:
    """``lhama.plugins.backend.Engine`` over one ``llama_context``: generates.

    Takes over the context and calls ``free_model`` after it is gone.
    """

    def __init__(
        self,
        context: Context,
        tokenizer: LlamaTokenizer,
        limits: Limits,
        residency: Residency,
        free_model: Callable[[], None],
    ) -> None:
        self.limits = limits
        self.residency = residency
        self.tokenizer = tokenizer
        self._context = context
        self._free_model = free_model
        self._batches = (Batch(limits.batch_tokens), Batch(limits.batch_tokens))
        self._samplers: dict[int, Sampler] = {}
        self._work: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._serve, name="llama-context", daemon=True)
        self._thread.start()

    # --------------------------------------------------------------------------- the two halves

    def prepare_next(self, plan: StepPlan, previous: PreparedStep | None) -> Prepared:
        first, second = self._batches
        batch = second if isinstance(previous, Prepared) and previous.batch is first else first
        batch.fill(plan.rows)
        samplers = tuple(
            (
                admit.slot,
                Sampler(
                    admit.sampling,
                    admit.history,
                    self.limits.vocab,
                    self.limits.context,
                    admit.logprobs,
                ),
            )
            for admit in plan.admits
        )
        return Prepared(plan, batch, samplers, any(row.masked for row in plan.rows))

    def compute_current(self, prepared: PreparedStep, tokens: Sequence[int]) -> Handle:
        assert isinstance(prepared, Prepared)
        step = prepared
        handle = Handle(lambda handle: self._compute(step, tokens, handle), step.masked)
        self._work.put(handle.run)
        handle.wait_for_start()
        return handle

    def _compute(self, step: Prepared, tokens: Sequence[int], handle: Handle) -> StepResult:
        for operation in step.plan.kv:
            self._context.apply(operation)
        for slot, sampler in step.samplers:
            self._install(slot, sampler)
        rows = step.batch.bind(tokens)
        if not step.batch.struct.n_tokens:
            return StepResult(())
        started = time.perf_counter_ns()
        self._context.decode(step.batch)
        if not rows:
            self._context.synchronize()
            return StepResult((), time.perf_counter_ns() - started)
        logits = self._context.logits(len(rows))
        compute_ns = time.perf_counter_ns() - started
        masks = handle.masks() if step.masked else {}
        return StepResult(self._sample(rows, logits, masks), compute_ns)

    def _sample(
        self, rows: Sequence[Row], logits: Logits, masks: Mapping[int, bytes]
    ) -> tuple[RowResult, ...]:
        results: list[RowResult] = []
        for index, row in enumerate(rows):
            try:
                mask = masks[row.slot] if row.masked else None
                token, logprob, top = self._samplers[row.slot].sample(logits[index], mask)
            except RowError as error:
                results.append(RowResult(row.slot, row.epoch, 0, error=str(error)))
            except KeyError:
                problem = "sampled without a mask" if row.masked else "never admitted"
                results.append(RowResult(row.slot, row.epoch, 0, error=f"the slot was {problem}"))
            else:
                results.append(RowResult(row.slot, row.epoch, token, logprob, top))
        return tuple(results)

    def _install(self, slot: int, sampler: Sampler) -> None:
        before = self._samplers.get(slot)
        if before is not None:
            before.close()
        self._samplers[slot] = sampler

    def embed(self, inputs: Sequence[Sequence[int]]) -> EmbedHandle:
        raise BackendError("this model does not support embeddings")

    # ----------------------------------------------------------------------- the context's thread

    def _serve(self) -> None:
        while (work := self._work.get()) is not None:
            work()

    def close(self) -> None:
        self._work.put(None)
        self._thread.join()
        for sampler in self._samplers.values():
            sampler.close()
        self._samplers.clear()
        self._context.close()
        self._free_model()
