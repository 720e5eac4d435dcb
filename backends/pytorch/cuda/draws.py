"""How rows are drawn: settings of each slot, laid out for the kernels.

Most rows are drawn inside the step's graph. Those that want what it cannot do (more than 64
candidates, typical_p, a mask, log-probabilities, long penalty windows) take the general way.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from lhama.backends.pytorch.cuda.rows import Staging
from lhama.backends.pytorch.penalties import penalised
from lhama.backends.pytorch.sampler import Turn, uniform

BEST: Final = 64
"""Candidates, and tokens penalties look back on, that a kernel takes."""
FEW: Final = 8
"""Rows up to which plain integers are faster than arrays."""


def is_common(turn: Turn, context: int) -> bool:
    """Whether the row is drawn by the kernels."""
    sampling = turn.sampling
    if turn.row.masked or turn.logprobs >= 0 or sampling.typical_p < 1:
        return False
    if sampling.temperature > 0 and not 0 < sampling.top_k <= BEST:
        return False
    return window(turn, context) <= BEST


def window(turn: Turn, context: int) -> int:
    """Tokens the row's penalties look back on."""
    sampling = turn.sampling
    if not penalised(sampling):
        return 0
    last = sampling.repeat_last_n if sampling.repeat_last_n >= 0 else context
    return min(last, context, turn.accepted)


def stage(
    turns: Sequence[Turn], common: Sequence[bool], at: Sequence[int], into: Staging, context: int
) -> bool:
    """Fill in settings at the turns' places; whether any row is penalised.

    Rows that are not ``common`` are drawn anew: of them anything will do.
    """
    chosen = [(place, turn) for place, turn, fast in zip(at, turns, common, strict=True) if fast]
    for place, turn in chosen:
        sampling = turn.sampling
        into["temperature"][place] = sampling.temperature
        into["top_k"][place] = sampling.top_k if sampling.temperature > 0 else 1
        into["top_p"][place] = sampling.top_p
        into["min_p"][place] = sampling.min_p
    sizes = [window(turn, context) for _, turn in chosen]
    if not any(sizes):
        return False
    for (place, turn), size in zip(chosen, sizes, strict=True):
        into["sizes"][place] = size
        into["accepted"][place] = turn.accepted
        into["repeat"][place] = turn.sampling.repeat_penalty
        into["presence"][place] = turn.sampling.presence_penalty
        into["frequency"][place] = turn.sampling.frequency_penalty
    return True


def numbers(seeds: Sequence[int], positions: Sequence[int]) -> Sequence[float]:
    """``sampler.uniform`` of every row."""
    if len(seeds) <= FEW:
        return [uniform(seed, position) for seed, position in zip(seeds, positions, strict=True)]
    state = np.array([seed & 0xFFFFFFFFFFFFFFFF for seed in seeds], np.uint64)
    state *= np.uint64(0x9E3779B97F4A7C15)
    state += (np.array(positions, np.uint64) + np.uint64(1)) * np.uint64(0xD1B54A32D192ED03)
    for _ in range(2):
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        state ^= state >> np.uint64(31)
    drawn: list[float] = ((state >> np.uint64(40)).astype(np.float64) / 2**24).tolist()
    return drawn
