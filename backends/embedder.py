"""What engines that embed share: one thread that computes, and the contract's checks before it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from lhama.plugins.backend import (
    BackendError,
    Limits,
    PreparedStep,
    Residency,
    StepHandle,
    StepPlan,
    Tokenizer,
)

_NO_STEPS = "this model was loaded for embeddings: it does not generate"


class Embedder(ABC):
    """``lhama.plugins.backend.Engine`` that serves ``embed`` and nothing else."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        limits: Limits,
        residency: Residency,
        start: Callable[[], object] | None = None,
    ) -> None:
        """``start`` is run on the computing thread before anything else."""
        self.tokenizer = tokenizer
        self.limits = limits
        self.residency = residency
        self._thread = ThreadPoolExecutor(1, "embedder", start)

    @abstractmethod
    def vectors(self, inputs: list[tuple[int, ...]]) -> list[bytes]:
        """Compute a checked step; on the computing thread. Raises ``BackendError``."""

    def embed(self, inputs: Sequence[Sequence[int]]) -> Future[list[bytes]]:
        limits = self.limits
        if not 0 < len(inputs) <= limits.slots:
            raise BackendError(f"{len(inputs)} texts in a step of at most {limits.slots}")
        for tokens in inputs:
            if not tokens:
                raise BackendError("a text to embed has no tokens")
            if len(tokens) > limits.context:
                raise BackendError(
                    f"a text of {len(tokens)} tokens exceeds the limit of {limits.context}"
                )
        if len(inputs) > 1 and sum(map(len, inputs)) > limits.batch_tokens:
            raise BackendError(f"the texts have more than {limits.batch_tokens} tokens together")
        return self._thread.submit(self.vectors, [tuple(tokens) for tokens in inputs])

    def prepare_next(self, plan: StepPlan, previous: PreparedStep | None) -> PreparedStep:
        raise BackendError(_NO_STEPS)

    def compute_current(self, prepared: PreparedStep, tokens: Sequence[int]) -> StepHandle:
        raise BackendError(_NO_STEPS)

    def close(self) -> None:
        self._thread.shutdown()
