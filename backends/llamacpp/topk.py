"""The largest logits of many rows at once."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from lhama.backends.llamacpp.library import np

if TYPE_CHECKING:
    import numpy.typing as npt

    Logits = npt.NDArray[np.float32]
    Ids = npt.NDArray[np.intp]

_STRIDE = 64
"""The maxima of groups of this many elements are compared first."""


def top(row: Logits, count: int) -> Ids:
    """The ``count`` largest of ``row``, largest first; equal ones by index. A NaN comes first."""
    groups = len(row) // _STRIDE
    if count > groups:
        return top_rows(row[None], count)[0].reshape(-1)
    maxima = row[: groups * _STRIDE].reshape(_STRIDE, groups).max(axis=0)
    maxima.partition((groups - count, groups - 1))
    if math.isnan(maxima[-1]) or np.isnan(row[groups * _STRIDE :]).any():
        return np.flatnonzero(np.isnan(row))[:1]
    found: Ids = (row >= maxima[groups - count]).nonzero()[0]
    return found[(-row[found]).argsort(kind="stable")[:count]]


def top_rows(rows: Logits, count: int) -> tuple[Ids, Logits]:
    """``top`` of every row: indices and values, [rows, count]. A row with a NaN has it in front.

    Exact: split a row into groups; the count-th largest of the groups' maxima is not above the
    count-th largest element, so everything in question is at or above it. A partition of the whole
    row takes three times as long.
    """
    height, width = rows.shape
    groups = width // _STRIDE
    if count > groups:
        ids = np.argsort(-rows, axis=1, kind="stable")[:, :count]
        return _nan_first(rows, ids)
    size = rows.itemsize
    grouped = np.lib.stride_tricks.as_strided(  # a group is a column
        rows, (height, _STRIDE, groups), (rows.strides[0], groups * size, size)
    )
    maxima = grouped.max(axis=1)
    maxima.partition((groups - count, groups - 1), axis=1)  # a NaN goes last
    bounds = maxima[:, groups - count]
    if np.isnan(maxima[:, -1]).any() or np.isnan(rows[:, groups * _STRIDE :]).any():
        return _nan_first(rows, np.argsort(-rows, axis=1, kind="stable")[:, :count])
    found = (rows >= bounds[:, None]).reshape(-1).nonzero()[0]
    values = rows.reshape(-1)[found]
    of_row = found // width
    order = np.lexsort((-values, of_row))
    starts = of_row.searchsorted(np.arange(height))
    best = order[starts[:, None] + np.arange(count)]
    return found[best] - (np.arange(height) * width)[:, None], values[best]


def _nan_first(rows: Logits, ids: Ids) -> tuple[Ids, Logits]:
    for row, best in zip(rows, ids, strict=True):
        broken = np.flatnonzero(np.isnan(row))
        if len(broken):
            best[0] = broken[0]
    return ids, np.take_along_axis(rows, ids, axis=1)
