"""One token through the network: five kernels a layer, each fetching weights before it waits; with
experts seven, two of which must wait for who is chosen.

What the kernels hand on is in ``kernels/one_row.py``.
"""

from __future__ import annotations

import torch

from lhama.backends.pytorch.cuda import tiling
from lhama.backends.pytorch.cuda.attention import Attention
from lhama.backends.pytorch.cuda.experts import Choice
from lhama.backends.pytorch.cuda.kernels import experts
from lhama.backends.pytorch.cuda.kernels import one_row as kernels
from lhama.backends.pytorch.cuda.matrix import Matrix
from lhama.backends.pytorch.cuda.network import Block, Network
from lhama.backends.pytorch.cuda.rows import Rows


class Vector:
    """What a matrix is multiplied with: bytes with scales, floats, or both, as consumers want it."""

    def __init__(
        self, size: int, consumers: tuple[Matrix, ...], device: torch.device, count: int = 1
    ) -> None:
        """``count`` of ``size`` elements, one behind the other."""
        self.ints = any(matrix.form for matrix in consumers)
        self.floats = any(not matrix.form for matrix in consumers)
        self.y = torch.zeros(count * -(-size // 1024) * 640, dtype=torch.int32, device=device)
        self.yf = torch.zeros(count * -(-size // 256) * 256, device=device)


class Single:
    """Enqueues the kernels of one row; the same buffers serve every layer."""

    def __init__(
        self, network: Network, rows: Rows, attention: Attention, logits: torch.Tensor,
        peaks: torch.Tensor, *, pdl: bool,
    ) -> None:  # fmt: skip
        shape, device = network.shape, logits.device
        self.network = network
        self._rows = rows
        self._attention = attention
        self._logits = logits
        self._peaks = peaks
        self._pdl = pdl
        blocks = network.blocks
        queries = shape.heads * shape.head_dim
        self._h = torch.zeros(shape.width, device=device)
        self._x = Vector(shape.width, (*blocks[0].qkv, blocks[0].gate, network.head), device)
        self._mixed = Vector(queries, tuple(block.output for block in blocks), device)
        downs = tuple(block.down for block in blocks)
        self._hidden = Vector(shape.inner, downs, device, max(1, shape.experts_used))
        if shape.experts:
            self._choice = Choice(network, 1, device, pdl=pdl)
        for block in blocks:
            consumers = [*block.qkv, block.gate, block.up]
            if block.router is not None:
                consumers.append(block.router)
            self._x.ints |= any(m.form is not None for m in consumers)
            self._x.floats |= any(m.form is None for m in consumers)
        self._qkv = torch.zeros(queries + 2 * shape.kv_heads * shape.head_dim, device=device)
        self._o = torch.zeros(shape.width, device=device)
        # Two, in turn: a kernel reads the one before's while it writes its own.
        self._squares = [torch.zeros(-(-shape.width // 16), device=device) for _ in range(2)]
        self._o_squares = torch.zeros(-(-shape.width // 16), device=device)

    def run(self, last_token: torch.Tensor, splits: int) -> None:
        """Row 0: its token in, its logits out. ``splits``: of the cache, as many as it may have."""
        network = self.network
        shape, x = network.shape, self._x
        first = network.blocks[0].attention_norm
        kernels.embed[(shape.width // 16,)](
            network.embedding.words, self._rows["tokens"], self._rows["slots"], last_token,
            network.traits.embedding_scale, self._h, first, x.y, x.yf, self._squares[0],
            shape.width, network.embedding.rows, network.embedding.number, x.ints, x.floats,
            num_warps=1,
        )  # fmt: skip
        for index, block in enumerate(network.blocks):
            self._project(
                block.qkv, tiling.one(block.qkv[0]), block.qkv_bias, self._squares[0], self._qkv
            )
            self._attention.one(index, block, self._qkv, self._mixed, splits)
            self._add(
                block.output, self._mixed, block.output_bias, block.attention_post_norm,
                block.mlp_norm, self._squares[1],
            )  # fmt: skip
            following = network.norm
            if index + 1 < len(network.blocks):
                following = network.blocks[index + 1].attention_norm
            if block.router is not None:
                self._mix(block, block.router, following)
                continue
            self._gated(block)
            self._add(
                block.down, self._hidden, None, block.mlp_post_norm, following, self._squares[0]
            )
        self._score()

    def _project(
        self, matrices: tuple[Matrix, ...], rows: tiling.Rows, bias: torch.Tensor | None,
        squares: torch.Tensor, y: torch.Tensor,
    ) -> None:  # fmt: skip
        """y = one or two matrices, below one another, times the normed vector."""
        first, second = (*matrices, matrices[0])[:2]
        two = len(matrices) > 1
        r, warps, ahead, _, registers = rows
        kernels.project[((first.rows + (second.rows if two else 0)) // 16,)](
            first.words, second.words, self._x.y, self._x.yf, squares, self.network.shape.norm_eps,
            y if bias is None else bias, y, self._o_squares,
            first.columns, first.rows, second.rows if two else 0, first.number, second.number,
            True, bias is not None, False, ahead, r, warps, self._pdl,
            num_warps=warps, maxnreg=registers, launch_pdl=self._pdl,
        )  # fmt: skip

    def _add(
        self, matrix: Matrix, vector: Vector, bias: torch.Tensor | None,
        post_norm: torch.Tensor | None, norm: torch.Tensor, squares: torch.Tensor,
    ) -> None:  # fmt: skip
        r, warps, ahead, _, registers = tiling.one(matrix)
        x, eps = self._x, self.network.shape.norm_eps
        if post_norm is None:
            kernels.add[(matrix.rows // 16,)](
                matrix.words, vector.y, vector.yf, self._h if bias is None else bias, self._h,
                norm, x.y, x.yf, squares, matrix.columns, matrix.rows, matrix.number,
                bias is not None, x.ints, x.floats, ahead, r, warps, self._pdl,
                num_warps=warps, maxnreg=registers, launch_pdl=self._pdl,
            )  # fmt: skip
            return
        kernels.project[(matrix.rows // 16,)](
            matrix.words, matrix.words, vector.y, vector.yf, squares, eps,
            self._o if bias is None else bias, self._o, self._o_squares,
            matrix.columns, matrix.rows, 0, matrix.number, matrix.number,
            False, bias is not None, True, ahead, r, warps, self._pdl,
            num_warps=warps, maxnreg=registers, launch_pdl=self._pdl,
        )  # fmt: skip
        kernels.join[(matrix.rows // 16,)](
            self._o, self._o_squares, post_norm, eps, self._h, norm, x.y, x.yf, squares,
            matrix.rows, x.ints, x.floats, self._pdl, num_warps=1, launch_pdl=self._pdl,
        )  # fmt: skip

    def _gated(self, block: Block) -> None:
        r, warps, ahead, ahead_up, registers = tiling.one_gated(block.gate)
        hidden = self._hidden
        kernels.gated[(block.gate.rows // 16,)](
            block.gate.words, block.up.words, self._x.y, self._x.yf, self._squares[1],
            self.network.shape.norm_eps, hidden.y, hidden.yf,
            block.gate.columns, block.gate.rows, block.gate.number, self.network.traits.gelu,
            hidden.ints, hidden.floats, ahead, ahead_up, r, warps, self._pdl,
            num_warps=warps, maxnreg=registers, launch_pdl=self._pdl,
        )  # fmt: skip

    def _mix(self, block: Block, router: Matrix, following: torch.Tensor) -> None:
        """A mixture's half of a block."""
        shape, x, hidden, choice = self.network.shape, self._x, self._hidden, self._choice
        gate, down = block.gate, block.down
        self._project((router,), tiling.one_router(router), None, self._squares[1], choice.logits)
        choice.choose(1)
        r, warps, ahead, ahead_up, registers = tiling.one_gated_experts(gate)
        experts.gated_experts[(shape.inner // 16, shape.experts_used)](
            gate.words, block.up.words, x.y, x.yf, self._squares[1], shape.norm_eps,
            choice.experts, hidden.y, hidden.yf, gate.columns, gate.rows, shape.inner,
            gate.number, self.network.traits.gelu, hidden.ints, hidden.floats, ahead, ahead_up, r,
            warps, self._pdl, num_warps=warps, maxnreg=registers, launch_pdl=self._pdl,
        )  # fmt: skip
        r, warps, ahead, _, registers = tiling.one(down)
        experts.add_experts[(shape.width // 16,)](
            down.words, hidden.y, hidden.yf, choice.experts, choice.shares, self._h, following,
            x.y, x.yf, self._squares[0], down.columns, down.rows, shape.width, down.number,
            shape.experts_used, x.ints, x.floats, ahead, r, warps, self._pdl,
            num_warps=warps, maxnreg=registers, launch_pdl=self._pdl,
        )  # fmt: skip

    def _score(self) -> None:
        head, shape = self.network.head, self.network.shape
        r, warps, ahead, _, registers = tiling.one(head)
        kernels.score[(head.rows // 16,)](
            head.words, self._x.y, self._x.yf, self._squares[0], shape.norm_eps, self._logits,
            self._peaks, head.columns, head.rows, head.outputs, head.number, shape.logit_softcap,
            ahead, r, warps, self._pdl, num_warps=warps, maxnreg=registers, launch_pdl=self._pdl,
        )  # fmt: skip
