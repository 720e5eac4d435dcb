"""One loaded model: batches are prepared while llama.cpp computes the one before."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lhama.backends.llamacpp.batch import Batch
from lhama.backends.llamacpp.lane import Lane
from lhama.backends.llamacpp.pool import SamplerPool
from lhama.backends.llamacpp.sampling import Sampler
from lhama.backends.llamacpp.step import ContextThread, Enqueued, Step, Threaded
from lhama.backends.llamacpp.tokenizer import LlamaTokenizer
from lhama.plugins.backend import (
    DROPPED,
    BackendError,
    EmbedHandle,
    Limits,
    Media,
    PreparedStep,
    Residency,
    Row,
    StepPlan,
)

if TYPE_CHECKING:
    from lhama.backends.llamacpp.media import MediaReader


@dataclass(frozen=True, slots=True)
class Prepared:
    """A step without its pending tokens."""

    plan: StepPlan
    batch: Batch
    """Of the rows with tokens."""
    admitted: tuple[tuple[int, Sampler], ...]
    """What the plan's admissions put into which slot."""


class LlamaCppEngine:
    """``lhama.plugins.backend.Engine``: generates.

    ``lanes``: one for each group of slots. Takes over their contexts and calls ``free_model``
    after they are gone. ``blocking``: decoding takes as long as the computation, because some of it
    runs on the processor. ``media``: the model's projector.
    """

    def __init__(
        self,
        lanes: Sequence[Lane],
        tokenizer: LlamaTokenizer,
        limits: Limits,
        residency: Residency,
        free_model: Callable[[], None],
        *,
        blocking: bool = True,
        media: MediaReader | None = None,
    ) -> None:
        self.limits = limits
        self.residency = residency
        self.tokenizer = tokenizer
        self._lanes = lanes
        self._free_model = free_model
        self._samplers = SamplerPool(parallel=not blocking)
        self._thread = ContextThread() if blocking else None
        self._media = media

    # --------------------------------------------------------------------------- the two halves

    def prepare_next(self, plan: StepPlan, previous: PreparedStep | None) -> Prepared:
        batch = self._lanes[plan.group].fill(tuple(row for row in plan.rows if row.media is None))
        admitted = tuple(
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
        return Prepared(plan, batch, admitted)

    def compute_current(self, prepared: PreparedStep, tokens: Sequence[int]) -> Enqueued | Threaded:
        assert isinstance(prepared, Prepared)
        plan = prepared.plan
        context = self._lanes[plan.group].context
        media: list[Row] = []
        if self._media is not None:
            pairs = list(zip(plan.rows, tokens, strict=True))
            media = [row for row, token in pairs if row.media is not None and token != DROPPED]
            tokens = [token for row, token in pairs if row.media is None]
        step = Step(
            context,
            self._samplers,
            prepared.batch,
            plan.kv,
            prepared.admitted,
            tokens,
            [(self._media, row) for row in media] if self._media is not None else (),
        )
        if self._thread is None:
            return Enqueued(step)
        handle = Threaded(step, masked=any(row.masked for row in plan.rows))
        self._thread.put(handle.run)
        handle.wait_for_start()
        return handle

    def embed(self, inputs: Sequence[Sequence[int]]) -> EmbedHandle:
        raise BackendError("this model does not support embeddings")

    def read_prompt(self, parts: Sequence[str | bytes]) -> list[int | Media]:
        """``ReadsMedia``: offered where there is a projector."""
        if self._media is None:
            raise BackendError("this model has no projector: it reads text only")
        return self._media.read(parts)

    def close(self) -> None:
        if self._thread is not None:
            self._thread.close()
        self._samplers.close()
        for lane in self._lanes:
            lane.context.close()
        if self._media is not None:
            self._media.close()
        self._free_model()
