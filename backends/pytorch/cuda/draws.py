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
from lhama.backends.pytorch.sampler import Turn

BEST: Final = 64
"""Candidates, and tokens penalties look back on, that a kernel takes."""


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


def stage(turns: Sequence[Turn], into: Staging, context: int, nowhere: int) -> bool:
    """Fill in a step's settings; whether any row is penalised. ``nowhere``: a place to write what
    the general way draws anew."""
    count = len(turns)
    settings = [turn.sampling for turn in turns]
    common = [is_common(turn, context) for turn in turns]
    into["temperature"][:count] = [s.temperature for s in settings]
    into["top_k"][:count] = [
        s.top_k if s.temperature > 0 and fast else 1
        for s, fast in zip(settings, common, strict=True)
    ]
    into["top_p"][:count] = [s.top_p for s in settings]
    into["min_p"][:count] = [s.min_p for s in settings]
    into["number"][:count] = numbers(
        [s.seed for s in settings], [t.row.position + max(len(t.row.tokens), 1) for t in turns]
    )
    into["places"][:count] = [
        t.row.slot * context + t.accepted % context if fast else nowhere
        for t, fast in zip(turns, common, strict=True)
    ]
    sizes = [window(t, context) if fast else 0 for t, fast in zip(turns, common, strict=True)]
    into["sizes"][:count] = sizes
    if not any(sizes):
        return False
    into["accepted"][:count] = [t.accepted for t in turns]
    into["repeat"][:count] = [s.repeat_penalty for s in settings]
    into["presence"][:count] = [s.presence_penalty for s in settings]
    into["frequency"][:count] = [s.frequency_penalty for s in settings]
    return True


def numbers(
    seeds: Sequence[int], positions: Sequence[int]
) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """``sampler.uniform`` of every row."""
    state = np.array([seed & 0xFFFFFFFFFFFFFFFF for seed in seeds], np.uint64)
    state *= np.uint64(0x9E3779B97F4A7C15)
    state += (np.array(positions, np.uint64) + np.uint64(1)) * np.uint64(0xD1B54A32D192ED03)
    for _ in range(2):
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        state ^= state >> np.uint64(31)
    return ((state >> np.uint64(40)).astype(np.float64) / 2**24).astype(np.float32)
