"""Enqueues mixtures of experts: who sees which, and for several tokens their MLPs too.

Nothing here is known on the host: experts are numbers on the card, and kernels are launched for
all of them. Each token's results are summed in the order of its shares.
"""

from __future__ import annotations

import math
from typing import Final

import torch

from lhama.backends.pytorch.cuda import tiling
from lhama.backends.pytorch.cuda.attention import covering
from lhama.backends.pytorch.cuda.kernels import experts, many_rows, mixing
from lhama.backends.pytorch.cuda.matrix import Matrix
from lhama.backends.pytorch.cuda.network import Block, Network
from lhama.backends.pytorch.cuda.written import FEW, SHRUNK, WrittenOut

STEP: Final = 1024
"""Pairs of tokens and experts that are sorted at once."""
ROUTED: Final = 16
"""Tokens, and experts, of a program that routes."""
ROUTED_COLUMNS: Final = 128
"""Of the inner dimension at once."""


class Choice:
    """The experts of up to ``most`` tokens and what they weigh, the best first."""

    def __init__(self, network: Network, most: int, device: torch.device, *, pdl: bool) -> None:
        shape = network.shape
        self._count = shape.experts
        self._used = shape.experts_used
        self._pdl = pdl
        padded = -(-shape.experts // ROUTED) * ROUTED
        self.logits = torch.zeros(most, padded, device=device)
        self.experts = torch.zeros(most, self._used, dtype=torch.int32, device=device)
        self.shares = torch.zeros(most, self._used, device=device)

    def route(self, x: torch.Tensor, router: Matrix) -> None:
        """Logits of normed activations [tokens, width]."""
        count, step = len(x), math.gcd(router.columns, ROUTED_COLUMNS)
        mixing.route[(-(-count // ROUTED), router.rows // ROUTED)](
            x, router.data, self.logits, count, router.columns, router.rows, ROUTED, ROUTED, step,
            self._pdl, num_warps=1, num_stages=4, launch_pdl=self._pdl,
        )  # fmt: skip

    def choose(self, count: int) -> None:
        """By the logits of the first ``count`` tokens."""
        mixing.choose[(count,)](
            self.logits, self.experts, self.shares, self.logits.shape[1], self._count,
            covering(self._count), self._used, self._pdl, num_warps=1, launch_pdl=self._pdl,
        )  # fmt: skip


class Experts:
    """The MLPs of several tokens. A pair is a token and one of its experts."""

    def __init__(
        self, network: Network, most: int, dtype: torch.dtype, written_out: WrittenOut,
        nobody: int, *, pdl: bool,
    ) -> None:  # fmt: skip
        """``most`` tokens. ``dtype``: of activations. ``nobody``: the slot of rows that only fill
        up."""
        shape, device, few = network.shape, network.norm.device, min(most, FEW)
        self._shape = shape
        self._gelu = network.traits.gelu
        self._written_out = written_out
        self._nobody = nobody
        self._pdl = pdl
        self._choice = Choice(network, most, device, pdl=pdl)
        self._capacity = most
        self._members = torch.zeros(shape.experts, most, dtype=torch.int32, device=device)
        self._sizes = torch.zeros(shape.experts, dtype=torch.int32, device=device)
        pairs, inner = most * shape.experts_used, shape.inner
        self._hidden = torch.zeros(pairs, inner, dtype=dtype, device=device)
        # Gate and up apart, where no kernel takes both.
        self._two = torch.zeros(2, pairs, inner, dtype=dtype, device=device)
        widest = max(-(-shape.width // 256), shape.experts_used * -(-inner // 256)) * 256
        self._arranged = torch.zeros(few * widest, dtype=torch.float16, device=device)

    def run(self, block: Block, x: torch.Tensor, slots: torch.Tensor, parts: torch.Tensor) -> None:
        """What each expert of a token says, times its share and ``SHRUNK``, into ``parts``
        [used, tokens, width]."""
        assert block.router is not None
        shape, choice, count = self._shape, self._choice, len(x)
        pairs = count * shape.experts_used
        choice.route(x, block.router)
        choice.choose(count)
        mixing.group[(shape.experts,)](
            choice.experts, slots, self._members, self._sizes, pairs, shape.experts_used,
            self._nobody, self._capacity, STEP, self._pdl, num_warps=4, launch_pdl=self._pdl,
        )  # fmt: skip
        hidden = self._hidden[:pairs]
        self._gated(block, x, hidden)
        self._down(block.down, hidden, parts, count)

    def _gated(self, block: Block, x: torch.Tensor, hidden: torch.Tensor) -> None:
        """The pairs' inner activations, ``SHRUNK``."""
        shape, gate = self._shape, block.gate
        if gate.form is None or len(x) > FEW:
            for matrix, into in zip((gate, block.up), self._two, strict=True):
                self._groups(x, matrix, into)
            many_rows.activate[(len(hidden), -(-shape.inner // 1024))](
                *self._two, hidden, SHRUNK, shape.inner, shape.inner, self._gelu, 4, num_warps=4
            )
            return
        tile, rows = tiling.several_gated(gate), self._rows_of(len(x))
        experts.multiply_gated_experts[(-(-shape.inner // tile.rows), shape.experts)](
            gate.words, block.up.words, self._arrange(x), self._members, self._sizes, hidden, SHRUNK,
            gate.rows, shape.inner, gate.columns, gate.number, self._gelu, shape.experts_used,
            self._capacity, rows, *tile, self._pdl,
            num_warps=tile.warps, launch_pdl=self._pdl,
        )  # fmt: skip

    def _down(self, down: Matrix, hidden: torch.Tensor, parts: torch.Tensor, count: int) -> None:
        shape, tile = self._shape, tiling.several(down)
        if down.form is None or count > FEW:
            self._groups(hidden, down, parts, count)
            return
        experts.multiply_experts[(-(-shape.width // tile.rows), shape.experts)](
            down.words, self._arrange(hidden), self._members, self._sizes, self._choice.shares,
            parts, count, down.rows, shape.width, down.columns, down.number, shape.experts_used,
            self._capacity, self._rows_of(count), *tile, self._pdl,
            num_warps=tile.warps, launch_pdl=self._pdl,
        )  # fmt: skip

    def _groups(self, x: torch.Tensor, matrix: Matrix, y: torch.Tensor, count: int = 0) -> None:
        """Products with floats: of tokens, or of pairs where ``count`` tokens have them."""
        shape, tile = self._shape, tiling.GROUPS
        rows, weights = matrix.outputs // shape.experts, self._written_out(matrix)
        mixing.multiply_groups[(-(-rows // tile.outputs), shape.experts)](
            x, weights, self._members, self._sizes, self._choice.shares, y, count, rows,
            matrix.columns, shape.experts_used, self._capacity, count > 0, tile.rows, tile.outputs,
            tile.step_bytes // weights.element_size(), num_warps=4, num_stages=3,
        )  # fmt: skip

    def _arrange(self, x: torch.Tensor) -> torch.Tensor:
        """Activations in the tensor cores' order, each row for itself, up to the next call."""
        experts.arrange_each[(len(x), -(-x.shape[1] // 256))](
            x, self._arranged, x.shape[1], 2, self._pdl, num_warps=2, launch_pdl=self._pdl
        )
        return self._arranged

    def _rows_of(self, count: int) -> int:
        """An expert's pairs that are computed at once: twice what is even, for few are."""
        rows, shape = max(8, covering(count)), self._shape
        even = -(-rows * shape.experts_used // shape.experts)
        return min(rows, max(8, covering(2 * even)))
