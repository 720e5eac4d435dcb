"""The largest logits of many rows at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lhama.backends.llamacpp.library import np

if TYPE_CHECKING:
    import numpy.typing as npt

    Logits = npt.NDArray[np.float32]
    Ids = npt.NDArray[np.intp]

_STRIDE = 64
"""Top-k compares the maxima of this many-element groups first."""


def top(row: Logits, count: int) -> Ids:
    """The ``count`` largest of ``row``, largest first; equal ones by index. A NaN comes first."""
    (ids,) = top_rows(row[None], count)
    return ids


def top_rows(rows: Logits, count: int) -> list[Ids]:
    """``top`` of every row of a matrix.

    Exact: split a row into groups; the count-th largest of the groups' maxima is not above the
    count-th largest element, so everything in question is at or above it. A partition of the whole
    row takes three times as long.
    """
    height, width = rows.shape
    groups = width // _STRIDE
    if count > groups:
        return [np.argsort(-row, kind="stable")[:count] for row in rows]
    end = groups * _STRIDE
    size = rows.itemsize
    grouped = np.lib.stride_tricks.as_strided(  # a group is a column
        rows, (height, _STRIDE, groups), (rows.strides[0], groups * size, size)
    )
    maxima = grouped.max(axis=1)
    maxima.partition((groups - count, groups - 1), axis=1)  # a NaN goes last
    found = (rows >= maxima[:, groups - count, None]).reshape(-1).nonzero()[0]
    ends = found.searchsorted(np.arange(1, height + 1) * width).tolist()
    broken = np.isnan(maxima[:, -1])
    if end < width:
        broken |= np.isnan(rows[:, end:]).any(axis=1)
    best, begin = [], 0
    for index, row in enumerate(rows):
        ids = found[begin : ends[index]] - index * width
        begin = ends[index]
        if broken[index]:
            best.append(np.flatnonzero(np.isnan(row))[:1])
        else:
            best.append(ids[(-row[ids]).argsort(kind="stable")[:count]])
    return best
