"""Tokens nobody asked for that let llama.cpp compute a step in one pass.

With a stream of cells for each sequence, one pass takes neighbouring sequences with equally many
tokens. Anything else becomes further passes, and whenever the shape of a pass is new, llama.cpp
builds its graph again: on an H100's host 4 ms for a model of 1B, 7 for SmolLM2's 30 layers, 12 for
8B, against 0.02 to 0.1 ms for one more token. So rows are filled up to the longest row's length,
and idle sequences between busy ones get as many. The cache forgets the fillers right after.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

LONGEST_GAP = 16
"""Idle sequences in a row that are worth computing in vain."""

MOST = 128
"""Fillers that are worth computing to make rows equally long."""


class Span(NamedTuple):
    """A row's tokens in a batch: ``start`` to ``end``, the first at ``position``."""

    sequence: int
    start: int
    end: int
    position: int

    @property
    def length(self) -> int:
        return self.end - self.start


class Filler(NamedTuple):
    """``size`` tokens to put in at index ``at``, the first of them at ``position``."""

    at: int
    sequence: int
    position: int
    size: int


def fillers(
    spans: Sequence[Span], most: int, cells: int, used: Callable[[int], int]
) -> list[Filler]:
    """What makes one pass of a step, or at least of neighbours; nothing if that takes too much.

    ``spans`` in the order of their sequences; ``most``: fillers that fit the batch; ``cells`` of a
    sequence; ``used(sequence)``: how many of them are.
    """
    longest = max((span.length for span in spans), default=0)
    level = _fill(spans, longest, cells, used)
    worth = MOST if longest > 1 else most
    if level is not None and sum(filler.size for filler in level) <= min(most, worth):
        return level
    bridges = _fill(spans, 0, cells, used)
    if bridges is not None and sum(filler.size for filler in bridges) <= most:
        return bridges
    return []


def _fill(
    spans: Sequence[Span], length: int, cells: int, used: Callable[[int], int]
) -> list[Filler] | None:
    """Fillers of rows up to ``length`` and of short gaps; ``None`` where there are no cells."""
    found: list[Filler] = []
    for span, after in pairwise((*spans, None)):
        assert span is not None
        if span.length < length:
            position = span.position + span.length
            found.append(Filler(span.end, span.sequence, position, length - span.length))
        if after is None or after.sequence - span.sequence > LONGEST_GAP + 1:
            continue
        gap = range(span.sequence + 1, after.sequence)
        found += [Filler(span.end, idle, used(idle), max(length, 1)) for idle in gap]
    return found if all(f.position + f.size <= cells for f in found) else None
