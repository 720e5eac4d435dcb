"""llama.cpp's chain behind top-k for many rows at once, in its arithmetic and with its draws.

top_p → min_p → temperature → seeded draw, as ``llama-sampler.cpp`` has them: float32 sums in order,
a float64 sum for the draw, and ``std::mt19937``. What differs is the exponential's last bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lhama.backends.llamacpp.library import np
from lhama.plugins.backend import Sampling

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float32]
    Ids = npt.NDArray[np.intp]

WIDEST = 256
"""Most candidates of a row that are worth handling here."""


def covers(sampling: Sampling) -> bool:
    """Whether the chain of these wishes is this one."""
    return 0 < sampling.top_k <= WIDEST and sampling.typical_p >= 1 and sampling.temperature > 0


class Uniform:
    """``std::uniform_real_distribution<double>(0, 1)`` over ``std::mt19937``, as libstdc++ has it."""

    def __init__(self, seed: int) -> None:
        self._generator = np.random.MT19937()
        # Not the seeding numpy recommends, but std::mt19937's.
        self._generator._legacy_seeding(seed)

    def next(self) -> float:
        low, high = map(float, self._generator.random_raw(2))
        return min((low + high * 4294967296.0) / 18446744073709551616.0, 1 - 2.0**-53)


def draw_one(logits: Floats, wish: Sampling, uniform: float) -> int:
    """``draw`` for one row, [candidates]: the same operations, in a third of the time."""
    logits = logits[: wish.top_k]
    if wish.top_p < 1:
        shares = np.exp(logits - logits[0])
        shares /= shares.cumsum()[-1]
        logits = logits[: shares.cumsum().searchsorted(np.float32(wish.top_p)) + 1]
    if wish.min_p > 0:
        least = logits[0] + np.log(np.float32(wish.min_p))
        logits = logits[: np.count_nonzero(logits >= least)]
    logits = logits / np.float32(wish.temperature)
    sums = np.exp(logits - logits[0]).cumsum(dtype=np.float64)
    return int(sums.searchsorted(sums[-1] * uniform))


def draw(logits: Floats, wishes: Sequence[Sampling], uniforms: Sequence[float]) -> Ids:
    """The column drawn from each row.

    ``logits``: [rows, candidates], each row falling, its first finite; ``uniforms`` in [0, 1).
    """
    count = logits.shape[1]
    column = np.arange(count)
    kept = np.array([min(wish.top_k, count) for wish in wishes])
    logits = np.where(column < kept[:, None], logits, np.float32(-np.inf))
    top_p = np.array([wish.top_p for wish in wishes], np.float32)
    if (top_p < 1).any():
        shares = np.exp(logits - logits[:, :1])
        shares /= shares.cumsum(axis=1)[:, -1:]
        reached = (shares.cumsum(axis=1) >= top_p[:, None]) & (column < kept[:, None])
        last = np.where(reached.any(axis=1) & (top_p < 1), reached.argmax(axis=1) + 1, kept)
        logits = np.where(column < last[:, None], logits, np.float32(-np.inf))
    min_p = np.array([wish.min_p for wish in wishes], np.float32)
    if (min_p > 0).any():
        with np.errstate(divide="ignore"):
            least = logits[:, :1] + np.log(min_p)[:, None]
        logits = np.where(logits >= least, logits, np.float32(-np.inf))
    logits = logits / np.array([wish.temperature for wish in wishes], np.float32)[:, None]
    shares = np.exp(logits - logits[:, :1])
    sums = shares.cumsum(axis=1, dtype=np.float64)
    targets = sums[:, -1] * np.array(uniforms)
    chosen: Ids = (sums >= targets[:, None]).argmax(axis=1)
    return chosen
