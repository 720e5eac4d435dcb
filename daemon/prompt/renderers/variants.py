"""Which of a renderer's variants a model wants that only names the renderer."""

from __future__ import annotations

from collections.abc import Iterable

_SMALL, _LARGE = ("e2b", "e4b"), ("12b", "26b", "31b")
_LARGE_PARAMETERS = 12e9
_UNITS = {"B": 1e9, "M": 1e6, "K": 1e3}


def resolved(renderer: str, names: Iterable[str], size: str) -> str:
    """``gemma4`` as ``gemma4-small`` or ``gemma4-large``; any other name as it is.

    ``names`` of the model decide where they tell its size, else ``size``, parameters in words
    (``12B``); a model that tells neither is small.
    """
    if renderer != "gemma4":
        return renderer
    for name in map(str.lower, names):
        if any(mark in name for mark in _SMALL):
            return "gemma4-small"
        if any(mark in name for mark in _LARGE):
            return "gemma4-large"
    return "gemma4-large" if _parameters(size) >= _LARGE_PARAMETERS else "gemma4-small"


def _parameters(size: str) -> float:
    unit = _UNITS.get(size[-1:].upper(), 0.0)
    try:
        return float(size[:-1]) * unit
    except ValueError:
        return 0.0
