"""Matrices written out in float16, one after the other into the same scratch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch

from lhama.backends.pytorch.cuda.kernels import many_rows as kernels
from lhama.backends.pytorch.cuda.matrix import Matrix

FEW: Final = 64
"""Tokens up to which codes go to the tensor cores without this detour."""
SHRUNK: Final = 1 / 64
"""What the MLP's inner activations are kept smaller by: some models' exceed float16."""


class WrittenOut:
    """Called with a matrix: its weights as floats [outputs, columns], up to the next call."""

    def __init__(self, matrices: Sequence[Matrix], most: int, device: torch.device) -> None:
        """For steps of up to ``most`` tokens."""
        quantised = (m.outputs * m.columns for m in matrices if m.form)
        largest = max(quantised, default=0) if most > FEW else 0
        self._plain = torch.zeros(largest, dtype=torch.float16, device=device)

    def __call__(self, matrix: Matrix) -> torch.Tensor:
        """In float16; a float matrix as it is."""
        if matrix.form is None:
            return matrix.data[: matrix.outputs]
        plain = self._plain[: matrix.outputs * matrix.columns].view(matrix.outputs, -1)
        kernels.dequantise[(-(-matrix.outputs // 16), -(-matrix.columns // 256))](
            matrix.words, plain, matrix.rows, matrix.columns, matrix.number, matrix.outputs, 16, 1,
            num_warps=1,
        )  # fmt: skip
        return plain
