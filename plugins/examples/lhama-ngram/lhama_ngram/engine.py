"""One loaded model: slots with their caches, and the two halves of a step."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from lhama.plugins.backend import (
    DROPPED,
    Admit,
    BackendError,
    Copy,
    EmbedHandle,
    Limits,
    LoadOptions,
    PreparedStep,
    Residency,
    Row,
    RowResult,
    Shift,
    StepPlan,
    StepResult,
    Trim,
)
from lhama_ngram.model import Model
from lhama_ngram.sampling import allowed, draw, penalised
from lhama_ngram.tokenizer import VOCAB, ByteTokenizer


@dataclass
class Slot:
    """A sequence's place. The cache of a transformer holds keys and values; ours holds tokens."""

    cache: list[int] = field(default_factory=list)
    history: list[int] = field(default_factory=list)
    """Prompt and answer, for penalties."""
    admit: Admit | None = None


@dataclass
class Prepared:
    """What ``prepare_next`` built. An engine with a device has its index tensors in here."""

    plan: StepPlan


class Handle:
    """A step that the worker has or will have."""

    def __init__(self, masked: bool) -> None:
        self.step: Future[StepResult]
        self.masks: Mapping[int, bytes] = {}
        self.masks_came = threading.Event()
        if not masked:
            self.masks_came.set()

    def result(self) -> StepResult:
        return self.step.result()

    def supply_masks(self, masks: Mapping[int, bytes]) -> None:
        self.masks = masks
        self.masks_came.set()


class NgramEngine:
    """``lhama.plugins.backend.Engine``. Only the worker thread touches slots and model."""

    def __init__(self, model: Model, options: LoadOptions) -> None:
        self.limits = Limits(
            slots=options.slots,
            context=options.context,
            batch_tokens=options.batch,
            vocab=VOCAB,
            late_mask=True,
            features=frozenset({"copy", "shift"}),
        )
        self.residency = Residency("cpu", model.nbytes, device_bytes=0)
        self.tokenizer = ByteTokenizer()
        self._model = model
        self._slots = [Slot() for _ in range(options.slots)]
        self._worker = ThreadPoolExecutor(1, "ngram")

    def prepare_next(self, plan: StepPlan, previous: PreparedStep | None) -> Prepared:
        """The step before may still run: nothing of a slot is looked at here."""
        if sum(row.size for row in plan.rows) > self.limits.batch_tokens:
            raise BackendError("the step has more tokens than fit")
        return Prepared(plan)

    def compute_current(self, prepared: PreparedStep, tokens: Sequence[int]) -> Handle:
        """Hand the step to the worker and return: the core prepares the next one meanwhile."""
        handle = Handle(any(row.masked for row in prepared.plan.rows))
        handle.step = self._worker.submit(self._step, prepared.plan, list(tokens), handle)
        return handle

    def embed(self, inputs: Sequence[Sequence[int]]) -> EmbedHandle:
        raise BackendError("this model gives no embeddings")

    def close(self) -> None:
        self._worker.shutdown()
        self._model.close()

    # -------------------------------------------------------------------------------- the worker

    def _step(self, plan: StepPlan, tokens: Sequence[int], handle: Handle) -> StepResult:
        """Cache operations, admissions, rows: the order is the contract's."""
        began = time.monotonic_ns()
        for op in plan.kv:
            self._apply(op)
        for admit in plan.admits:
            slot = self._slots[admit.slot]
            slot.admit, slot.history = admit, list(admit.history)
        drawn = []
        for row, fed in zip(plan.rows, tokens, strict=True):
            if fed == DROPPED:  # its sequence ended while this step was prepared
                continue
            slot = self._slots[row.slot]
            slot.cache += row.tokens or (fed,)
            if row.sample:
                drawn.append((row, self._model.log_probabilities(slot.cache)))
        computed = time.monotonic_ns() - began
        handle.masks_came.wait()
        rows = tuple(self._sample(row, values, handle.masks) for row, values in drawn)
        return StepResult(rows, computed)

    def _apply(self, op: Trim | Copy | Shift) -> None:
        match op:
            case Trim(slot, length):
                del self._slots[slot].cache[length:]
            case Copy(source, target, length):
                self._slots[target].cache = self._slots[source].cache[:length]
            case Shift(slot, keep, discard):
                del self._slots[slot].cache[keep : keep + discard]

    def _sample(self, row: Row, values: list[float], masks: Mapping[int, bytes]) -> RowResult:
        slot = self._slots[row.slot]
        admit = slot.admit
        assert admit is not None
        choice = allowed(penalised(values, admit.sampling, slot.history), masks.get(row.slot))
        if not choice:
            return RowResult(row.slot, row.epoch, 0, error="the mask allows no token")
        token = draw(choice, admit.sampling, len(slot.cache))
        slot.history.append(token)
        if admit.logprobs < 0:
            return RowResult(row.slot, row.epoch, token)
        ranked = sorted(range(VOCAB), key=lambda t: (-values[t], t))[: admit.logprobs]
        top = tuple((other, values[other]) for other in ranked)
        return RowResult(row.slot, row.epoch, token, values[token], top)
