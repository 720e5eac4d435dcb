"""A context and its batches. Two lanes on one model can compute in turn: see ``compare``."""

from __future__ import annotations

import time
from collections.abc import Sequence
from statistics import median

from lhama.backends.llamacpp.batch import Batch
from lhama.backends.llamacpp.context import Context
from lhama.backends.llamacpp.pool import SamplerPool
from lhama.backends.llamacpp.sampling import Sampler
from lhama.backends.llamacpp.step import Enqueued, Step
from lhama.plugins.backend import Row, Sampling, Trim

WARM, TIMED = 8, 12
"""Steps that let llama.cpp record its graphs, and steps that are timed."""
MARGIN = 0.97
"""Two lanes must take less than this share of one lane's time: they take more memory."""


class Lane:
    """A context that serves the slots from ``first`` on, and its two batches."""

    def __init__(self, context: Context, first: int, size: int, batch_tokens: int) -> None:
        self.context = context
        self.first = first
        self.size = size
        self._batches = (Batch(batch_tokens, first), Batch(batch_tokens, first))
        self._filled = 0

    def fill(self, rows: tuple[Row, ...]) -> Batch:
        """A batch of ``rows``, in the memory that the lane's step in flight does not use."""
        self._filled = 1 - self._filled
        batch = self._batches[self._filled]
        batch.fill(rows)
        return batch


def compare(lanes: Sequence[Lane], vocab: int) -> tuple[bool, str]:
    """Whether two lanes in turn beat one with as many rows, and that in words.

    What the host does between a lane's steps (sampling above all) is hidden by the other's
    computation; what it costs is that kernels are less efficient with half the rows, by how much
    hangs on the model and the card. Leaves the lanes' caches empty.
    """
    rows = lanes[0].size
    samplers = SamplerPool(parallel=True)
    for lane in lanes:
        for slot in range(lane.first, lane.first + lane.size):
            samplers.install(slot, Sampler(Sampling(seed=slot), (), vocab, 1))
    try:
        together = _time(lanes[:1], rows, samplers)
        in_turn = _time(lanes, rows // 2, samplers)
    finally:
        samplers.close()
        for lane in lanes:
            for slot in range(lane.first, lane.first + lane.size):
                lane.context.apply(Trim(slot, 0))
    pays = in_turn < MARGIN * together
    words = (
        f"{rows} rows in two half-batches {in_turn / 1e6:.2f} ms, in one {together / 1e6:.2f} ms: "
        f"{'two contexts' if pays else 'one context'}"
    )
    return pays, words


def _time(lanes: Sequence[Lane], rows: int, samplers: SamplerPool) -> float:
    """Nanoseconds of a step of every lane, each with ``rows`` rows, one in flight behind another."""
    flying: list[Enqueued] = []
    ends: list[int] = []
    for position in range(WARM + TIMED):
        for lane in lanes:
            slots = range(lane.first, lane.first + rows)
            batch = lane.fill(tuple(Row(slot, 0, position, (position,)) for slot in slots))
            if len(flying) == len(lanes):
                flying.pop(0).result()
            kv = tuple(Trim(slot, 0) for slot in slots) if not position else ()
            flying.append(Enqueued(Step(lane.context, samplers, batch, kv, (), [0] * rows)))
        ends.append(time.perf_counter_ns())
    for handle in flying:
        handle.result()
    return median(
        after - before for before, after in zip(ends[WARM:], ends[WARM + 1 :], strict=False)
    )
