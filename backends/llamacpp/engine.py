"""One loaded model: batches are prepared while llama.cpp computes the one before."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from lhama.backends.llamacpp.batch import Batch
from lhama.backends.llamacpp.context import Context
from lhama.backends.llamacpp.pool import SamplerPool
from lhama.backends.llamacpp.sampling import Sampler
from lhama.backends.llamacpp.step import ContextThread, Enqueued, Threaded
from lhama.backends.llamacpp.tokenizer import LlamaTokenizer
from lhama.plugins.backend import (
    BackendError,
    EmbedHandle,
    Limits,
    PreparedStep,
    Residency,
    Row,
    StepPlan,
    StepResult,
)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A step without its pending tokens."""

    plan: StepPlan
    batch: Batch
    samplers: tuple[tuple[int, Sampler], ...]
    """What the plan's admissions put into which slot."""
    masked: bool


class LlamaCppEngine:
    """``lhama.plugins.backend.Engine`` over one ``llama_context``: generates.

    Takes over the context and calls ``free_model`` after it is gone. ``blocking``: decoding takes
    as long as the computation, because some of it runs on the processor.
    """

    def __init__(
        self,
        context: Context,
        tokenizer: LlamaTokenizer,
        limits: Limits,
        residency: Residency,
        free_model: Callable[[], None],
        *,
        blocking: bool = True,
    ) -> None:
        self.limits = limits
        self.residency = residency
        self.tokenizer = tokenizer
        self._context = context
        self._free_model = free_model
        self._batches = (Batch(limits.batch_tokens), Batch(limits.batch_tokens))
        self._samplers = SamplerPool(parallel=not blocking)
        self._thread = ContextThread() if blocking else None

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

    def compute_current(self, prepared: PreparedStep, tokens: Sequence[int]) -> Enqueued | Threaded:
        assert isinstance(prepared, Prepared)
        step = Step(self._context, self._samplers, prepared, tokens)
        if self._thread is None:
            return Enqueued(step)
        handle = Threaded(step)
        self._thread.put(handle.run)
        handle.wait_for_start()
        return handle

    def embed(self, inputs: Sequence[Sequence[int]]) -> EmbedHandle:
        raise BackendError("this model does not support embeddings")

    def close(self) -> None:
        if self._thread is not None:
            self._thread.close()
        self._samplers.close()
        self._context.close()
        self._free_model()


class Step:
    """One step's work, in the order the contract gives: cache, admissions, rows."""

    __slots__ = ("_context", "_prepared", "_rows", "_samplers", "_started", "_tokens", "masked")

    def __init__(
        self, context: Context, samplers: SamplerPool, prepared: Prepared, tokens: Sequence[int]
    ) -> None:
        self.masked = prepared.masked
        self._context = context
        self._samplers = samplers
        self._prepared = prepared
        self._tokens = tokens
        self._rows: list[Row] = []
        self._started = 0

    def start(self) -> None:
        prepared = self._prepared
        for operation in prepared.plan.kv:
            self._context.apply(operation)
        for slot, sampler in prepared.samplers:
            self._samplers.install(slot, sampler)
        batch = prepared.batch
        self._rows = batch.bind(self._tokens)
        self._started = time.perf_counter_ns()
        if batch.struct.n_tokens:
            self._context.decode(batch)

    def finish(self, masks: Mapping[int, bytes]) -> StepResult:
        if not self._rows:
            self._context.synchronize()
            return StepResult((), time.perf_counter_ns() - self._started)
        logits = self._context.logits(len(self._rows))
        compute_ns = time.perf_counter_ns() - self._started
        return StepResult(self._samplers.sample(self._rows, logits, masks), compute_ns)
