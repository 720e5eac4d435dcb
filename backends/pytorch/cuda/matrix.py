"""A matrix on the card, quantised in planes or plain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch

from lhama.backends.pytorch.cuda import formats

PLAIN: Final = {"BF16": (8, torch.bfloat16), "F16": (9, torch.float16), "F32": (10, torch.float32)}
"""Float types: what kernels know them by, and torch's name."""


@dataclass(frozen=True, slots=True)
class Matrix:
    """[outputs, columns]; ``rows`` are outputs and padding, a multiple of 16."""

    data: torch.Tensor
    """int32 planes, or floats [rows, columns]."""
    number: int
    rows: int
    outputs: int
    columns: int
    form: formats.Format | None = None

    @property
    def words(self) -> torch.Tensor:
        """What kernels are given: 32-bit words."""
        return self.data if self.form else self.data.view(torch.int32)

    @property
    def nbytes(self) -> int:
        return int(self.data.nbytes)

    def rows_of(self, first: int, count: int) -> torch.Tensor:
        """Float rows ``first`` …, for matrices that are not quantised."""
        assert self.form is None
        return self.data[first : first + count]


class Stack:
    """Builds a matrix from tensors put below one another as they are read."""

    def __init__(
        self, type_name: str, counts: Sequence[int], columns: int, device: torch.device
    ) -> None:
        """``counts``: rows of each tensor."""
        self._form = formats.FORMATS.get(type_name)
        self._columns = columns
        self._outputs = sum(counts)
        self._rows = -(-self._outputs // formats.ALIGNED) * formats.ALIGNED
        self._filled = 0
        if self._form:
            self._number = self._form.number
            self._data = formats.allocate(self._form, self._rows, columns, device)
        else:
            self._number, dtype = PLAIN[type_name]
            self._data = torch.zeros(self._rows, columns, dtype=dtype, device=device)

    def add(self, raw: torch.Tensor) -> None:
        """Rows as they lie in the file, uint8 [rows, bytes], on the device."""
        first, count = self._filled, raw.shape[0]
        self._filled += count
        if self._form:
            formats.place(self._form, raw, self._data, self._rows, self._columns, first)
        else:
            self._data[first : first + count] = raw.view(self._data.dtype)

    def done(self) -> Matrix:
        assert self._filled == self._outputs
        return Matrix(
            self._data, self._number, self._rows, self._outputs, self._columns, self._form
        )
