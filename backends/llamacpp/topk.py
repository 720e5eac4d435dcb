"""The largest logits of many rows at once.

The logits lie in memory that the device has just written: reading them is what takes time. So
they are read once, against a bound below which the last step's best ones say nothing will be;
where that was wrong, the bound is looked for in the row itself.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from lhama.backends.llamacpp.library import np

if TYPE_CHECKING:
    import numpy.typing as npt

    Logits = npt.NDArray[np.float32]
    Ids = npt.NDArray[np.intp]
    Bounds = npt.NDArray[np.float32]

_STRIDE: Final = 64
"""The maxima of groups of this many elements are compared first."""

_MANY: Final = 4096
"""Candidates of a row from which the bound was too low to be of use."""


_NONE: Final = np.empty(0, np.intp)


class Bound:
    """A guess at what all of a row's largest will reach, made of the rows before it."""

    def __init__(self) -> None:
        self.value = float("nan")
        """NaN: none yet."""
        self._margin = 2.0

    def learn(self, least: float) -> None:
        """``least`` is the smallest of the largest of the row that was just searched."""
        self._margin *= 1.5 if least < self.value else 0.98
        self.value = least - self._margin


def top(row: Logits, count: int, guess: float = math.nan) -> Ids:
    """The ``count`` largest of ``row``, largest first; equal ones by index. A NaN comes first.

    The result does not hang on the guess.
    """
    if count > len(row) // _STRIDE:
        return _sort(row[None], count)[0].reshape(-1)
    found: Ids = np.logical_not(row < guess).nonzero()[0] if guess == guess else _NONE
    if not count <= len(found) <= _MANY:
        [bound] = _bounds(row[None], count)
        found = np.logical_not(row < bound).nonzero()[0]
    values = row[found]
    if np.isnan(values).any():
        return found[np.isnan(values)][:1]
    return found[(-values).argsort(kind="stable")[:count]]


def top_rows(rows: Logits, count: int, guesses: Bounds | None = None) -> tuple[Ids, Logits]:
    """``top`` of every row: indices and values, [rows, count]. A row with a NaN has it in front."""
    height, width = rows.shape
    if count > width // _STRIDE:
        return _sort(rows, count)
    guessed = guesses is not None and not np.isnan(guesses).any()
    bounds = guesses if guesses is not None and guessed else _bounds(rows, count)
    found, of_row, sizes = _reaching(rows, bounds)
    wrong = (sizes < count) | (sizes > _MANY)
    if wrong.any():
        bounds = bounds.copy()
        bounds[wrong] = _bounds(rows[wrong], count)
        found, of_row, sizes = _reaching(rows, bounds)
    values = rows.reshape(-1)[found]
    if np.isnan(values).any():
        return _sort(rows, count)
    starts = sizes.cumsum() - sizes
    # Cut to the largest, and what equals the least of them, before anything is sorted.
    table = np.full((height, sizes.max()), -np.inf, np.float32)
    table[of_row, np.arange(len(found)) - starts[of_row]] = values
    table.partition(table.shape[1] - count, axis=1)
    kept = values >= table[of_row, -count]
    found, of_row, values = found[kept], of_row[kept], values[kept]
    order = np.lexsort((-values, of_row))
    starts = of_row.searchsorted(np.arange(height))
    best = order[starts[:, None] + np.arange(count)]
    return found[best] - (np.arange(height) * width)[:, None], values[best]


def _reaching(rows: Logits, bounds: Bounds) -> tuple[Ids, Ids, Ids]:
    """What is not below its row's bound: flat indices, their rows, and how many each row has."""
    below = rows < bounds[:, None]
    found = np.logical_not(below, out=below).reshape(-1).nonzero()[0]  # a NaN is found, too
    of_row = found // rows.shape[1]
    return found, of_row, np.bincount(of_row, minlength=len(rows))


def _bounds(rows: Logits, count: int) -> Bounds:
    """For each row a value that at least ``count`` elements reach, and not many more.

    Split a row into groups: the count-th largest of the groups' maxima is not above the count-th
    largest element. A partition of the whole row takes three times as long.
    """
    height, width = rows.shape
    groups = width // _STRIDE
    size = rows.itemsize
    grouped = np.lib.stride_tricks.as_strided(  # a group is a column
        rows, (height, _STRIDE, groups), (rows.strides[0], groups * size, size)
    )
    maxima = grouped.max(axis=1)
    maxima.partition(groups - count, axis=1)
    bounds: Bounds = maxima[:, groups - count]
    return bounds


def _sort(rows: Logits, count: int) -> tuple[Ids, Logits]:
    """The plain way, for few elements and for rows with a NaN."""
    ids = np.argsort(-rows, axis=1, kind="stable")[:, :count]
    for row, best in zip(rows, ids, strict=True):
        broken = np.flatnonzero(np.isnan(row))
        best[: min(len(broken), 1)] = broken[:1]
    return ids, np.take_along_axis(rows, ids, axis=1)
