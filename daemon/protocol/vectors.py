"""Embedding vectors: cut and scaled to length one."""

from __future__ import annotations

import math
from collections.abc import Sequence

from lhama.daemon.errors import BadRequest


def finish(vector: Sequence[float], dimensions: int = 0) -> list[float]:
    """The vector at unit length, cut to ``dimensions`` first where that is fewer.

    A zero vector stays one. Raises ``BadRequest`` for NaN and infinity.
    """
    check_finite(vector)
    if 0 < dimensions < len(vector):
        vector = vector[:dimensions]
    length = math.sqrt(math.fsum(x * x for x in vector))
    return [x / length for x in vector] if length else list(vector)


def check_finite(vector: Sequence[float]) -> None:
    if not all(map(math.isfinite, vector)):
        raise BadRequest("embedding contains NaN or Inf values")
