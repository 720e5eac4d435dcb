"""Embedding vectors: cut and scaled to length one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from operator import mul

from lhama.daemon.errors import BadRequest


def finish(vector: Sequence[float], dimensions: int = 0) -> list[float]:
    """The vector at unit length, cut to ``dimensions`` first where that is fewer.

    A zero vector stays one. Raises ``BadRequest`` for NaN and infinity.
    """
    check_finite(vector)
    if 0 < dimensions < len(vector):
        vector = vector[:dimensions]
    length = math.sqrt(sum(map(mul, vector, vector)))
    return [x / length for x in vector] if length else list(vector)


def check_finite(vector: Sequence[float]) -> None:
    if not math.isfinite(sum(map(mul, vector, vector))):  # float32 squared is finite in float64
        raise BadRequest("embedding contains NaN or Inf values")
