"""The order of rows in llama's query and key matrices."""

from __future__ import annotations

from typing import Any

import numpy as np

from lhama.plugins.backend import UnsupportedModel


def interleave(values: np.ndarray[Any, Any], heads: int) -> np.ndarray[Any, Any]:
    """Rows of each head from halves (transformers rotates i with i + n/2) to neighbours.

    ggml rotates neighbours, 2i with 2i + 1, for the architecture ``llama``.
    """
    rows = len(values)
    if heads < 1 or rows % (2 * heads):
        raise UnsupportedModel(f"{rows} rows do not divide into the halves of {heads} heads")
    halves = values.reshape(heads, 2, rows // heads // 2, *values.shape[1:])
    return np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(values.shape)
