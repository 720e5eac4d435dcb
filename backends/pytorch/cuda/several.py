"""Several tokens through the network: one of each of many rows, chunks of prompts, or both.

Activations are float16 (or the type of float weights) and normed; the residual stream is float32.
Up to 64 tokens matrices are multiplied as they lie, by activations laid out for the tensor cores;
more are worth writing them out in float16 for cuBLAS, one matrix after the other into the same
scratch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import torch

from lhama.backends.pytorch.cuda import tiling
from lhama.backends.pytorch.cuda.attention import Attention, covering
from lhama.backends.pytorch.cuda.experts import Experts
from lhama.backends.pytorch.cuda.kernels import many_rows as kernels
from lhama.backends.pytorch.cuda.matrix import Matrix
from lhama.backends.pytorch.cuda.network import Block, Network
from lhama.backends.pytorch.cuda.written import FEW, SHRUNK, WrittenOut


@dataclass(frozen=True, slots=True)
class Tokens:
    """One step's tokens: first those of rows that have one, then chunks of prompts."""

    ids: torch.Tensor
    """int32 [tokens]; -1: what the slot sampled last."""
    slots: torch.Tensor
    positions: torch.Tensor
    single: int
    """How many rows with one token; in the order of the step's rows."""
    blocks: tuple[torch.Tensor, ...] = ()
    """int32 each: slot, first token (counted from the first of all chunks), position and count of
    up to 64 neighbouring tokens."""

    def __len__(self) -> int:
        return len(self.ids)


class Several:
    """Enqueues kernels for up to ``most`` tokens."""

    def __init__(
        self, network: Network, attention: Attention, most: int, rows: int, nobody: int,
        device: torch.device, *, pdl: bool,
    ) -> None:  # fmt: skip
        """``most`` tokens, of which ``rows`` at most give logits. ``nobody``: the slot of tokens
        that only fill up."""
        shape = network.shape
        self.network = network
        self._attention = attention
        self._pdl = pdl
        most = max(most, FEW)
        queries = shape.heads * shape.head_dim
        self._qkv_size = queries + 2 * shape.kv_heads * shape.head_dim
        first = network.blocks[0]
        plain = first.gate.data.dtype if first.gate.form is None else torch.float16
        self.dtype = plain
        few = min(most, FEW)

        def floats(*size: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
            return torch.zeros(size, dtype=dtype, device=device)

        self._h = floats(most, shape.width)
        self._x = floats(most, shape.width, dtype=plain)
        self._qkv = floats(max(most, tiling.MOST_PARTS * few), self._qkv_size)
        self._mixed = floats(most, queries, dtype=plain)
        hidden, said = (0, shape.experts_used) if shape.experts else (shape.hidden, 1)
        self._hidden = floats(most, hidden, dtype=plain)
        # Gate and up apart, where no kernel takes both. What a graph allocates is there for good.
        self._two = floats(2, most, hidden, dtype=plain)
        self._written_out = WrittenOut(network.matrices(), most, device)
        if shape.experts:
            self._experts = Experts(network, most, plain, self._written_out, nobody, pdl=pdl)
        self._parts = floats(max(tiling.MOST_PARTS * few, most * said) * shape.width)
        self._last = floats(-(-rows // FEW) * FEW, shape.width, dtype=plain)
        widest = max(shape.width, queries, hidden)
        self._arranged = floats(few * -(-widest // 256) * 256, dtype=torch.float16)

    # ------------------------------------------------------------------------------------- steps

    def run(self, tokens: Tokens, last_token: torch.Tensor) -> torch.Tensor:
        """Normed hidden states [tokens, width], ready for ``score``."""
        network, count = self.network, len(tokens)
        shape = network.shape
        h = self._h[:count]
        kernels.embed_rows[(count, -(-shape.width // 256))](
            network.embedding.words, tokens.ids, tokens.slots, last_token,
            network.traits.embedding_scale, h, shape.width, network.embedding.rows,
            network.embedding.number, 4, num_warps=4,
        )  # fmt: skip
        self._settle(count, 0, network.blocks[0].attention_norm, None, 1.0)
        for index, block in enumerate(network.blocks):
            self._attend(index, block, tokens)
            parts = self._multiply(self._mixed[:count], block.output, block.output_bias)
            self._settle(count, parts, block.mlp_norm, block.attention_post_norm, 1.0)
            if block.router is not None:
                self._experts.run(block, self._x[:count], tokens.slots, self._parts)
                parts = shape.experts_used
            else:
                self._gated(block, count)
                parts = self._multiply(self._hidden[:count], block.down, None)
            following = network.norm
            if index + 1 < len(network.blocks):
                following = network.blocks[index + 1].attention_norm
            self._settle(count, parts, following, block.mlp_post_norm, 1 / SHRUNK)
        return self._x[:count]

    def pick(self, normed: torch.Tensor, outputs: torch.Tensor) -> torch.Tensor:
        """Hidden states of the tokens whose logits are wanted."""
        return torch.index_select(normed, 0, outputs, out=self._last[: len(outputs)])

    def score(self, normed: torch.Tensor, logits: torch.Tensor, peaks: torch.Tensor) -> None:
        """Logits [rows, vocab] and peaks of hidden states [rows, width]."""
        for first in range(0, len(normed), FEW):
            some = slice(first, min(first + FEW, len(normed)))
            self._score(normed[some], logits[some], peaks[some])

    # ------------------------------------------------------------------------------------- parts

    def _attend(self, index: int, block: Block, tokens: Tokens) -> None:
        count, single = len(tokens), tokens.single
        few = count <= FEW and all(matrix.form for matrix in block.qkv)
        parts = tiling.parts_of(block.qkv[0]) if few else 1
        qkv = self._qkv.view(-1)[: parts * count * self._qkv_size].view(parts * count, -1)
        column, x = 0, self._x[:count]
        quantised = count <= FEW and any(matrix.form for matrix in block.qkv)
        arranged = self._arrange(x) if quantised else x
        for matrix in block.qkv:
            bias = block.qkv_bias
            if bias is not None:
                bias = bias[column : column + matrix.outputs]
            self._product(x, arranged, matrix, bias, qkv, column, parts)
            column += matrix.outputs
        self._attention.spread(index, block, qkv, (tokens.slots, tokens.positions), parts)
        if single:
            self._attention.many(index, block, self._mixed, single)
        if tokens.blocks:
            self._attention.chunks(index, block, self._mixed, single, tokens.blocks)

    def _gated(self, block: Block, count: int) -> None:
        """The MLP's inner activations, ``SHRUNK``."""
        x, y = self._x[:count], self._hidden[:count]
        gate, up, gelu = block.gate, block.up, self.network.traits.gelu
        if gate.form and count <= FEW:
            tile = tiling.several_gated(gate)
            kernels.multiply_gated[(-(-gate.rows // tile.rows),)](
                gate.words, up.words, self._arrange(x), y, SHRUNK, gate.rows, gate.columns,
                gate.number, gelu, padded(count), *tile, self._pdl,
                num_warps=tile.warps, launch_pdl=self._pdl,
            )  # fmt: skip
            return
        pair = []
        for matrix, into in zip((gate, up), self._two, strict=True):
            weight = self._written_out(matrix)
            out = into[:count] if into.dtype == weight.dtype else None  # layers may differ in type
            pair.append(torch.mm(x.to(weight.dtype), weight.t(), out=out))
        kernels.activate[(count, -(-gate.outputs // 1024))](
            *pair, y, SHRUNK, gate.outputs, gate.outputs, gelu, 4, num_warps=4
        )

    def _multiply(self, x: torch.Tensor, matrix: Matrix, bias: torch.Tensor | None) -> int:
        """Products into ``_parts``; how many parts there are."""
        count = len(x)
        few = matrix.form is not None and count <= FEW
        parts = tiling.parts_of(matrix) if few else 1
        y = self._parts[: parts * count * matrix.outputs].view(parts * count, matrix.outputs)
        self._product(x, self._arrange(x) if few else x, matrix, bias, y, 0, parts)
        return parts

    def _arrange(self, x: torch.Tensor) -> torch.Tensor:
        """A few tokens' activations in the tensor cores' order, valid up to the next call."""
        rows, columns = padded(len(x)), x.shape[1]
        kernels.arrange[(-(-columns // 256), rows // 8)](
            x, self._arranged, columns, rows, self._pdl, num_warps=4, launch_pdl=self._pdl
        )
        return self._arranged

    def _product(
        self, x: torch.Tensor, arranged: torch.Tensor, matrix: Matrix, bias: torch.Tensor | None,
        y: torch.Tensor, column: int, parts: int,
    ) -> None:  # fmt: skip
        """y[:, column:] = x times the matrix; ``parts`` of it below one another.

        ``arranged`` is x once more, as quantised matrices of a few tokens want it.
        """
        count = len(x)
        if matrix.form and count <= FEW:
            tile = tiling.several(matrix)
            kernels.multiply[(-(-matrix.rows // tile.rows), parts)](
                matrix.words, arranged, y if bias is None else bias, y, y.shape[1], column, count,
                matrix.rows, matrix.columns, matrix.number, padded(count), matrix.outputs, parts,
                bias is not None, *tile, self._pdl, num_warps=tile.warps, launch_pdl=self._pdl,
            )  # fmt: skip
            return
        whole = y.shape[1] == matrix.outputs
        into = y if whole else self._spare(count, matrix.outputs)
        out = product(x, self._written_out(matrix), into)
        if bias is not None:
            out += bias
        if not whole:
            y[:, column : column + matrix.outputs] = out

    def _spare(self, rows: int, columns: int) -> torch.Tensor:
        """float32 [rows, columns] that nobody needs before the next ``_multiply``."""
        size = rows * columns
        if size > len(self._parts):
            return torch.empty(rows, columns, device=self._parts.device)
        return self._parts[:size].view(rows, columns)

    def _score(self, x: torch.Tensor, logits: torch.Tensor, peaks: torch.Tensor) -> None:
        head, count = self.network.head, len(x)
        softcap = self.network.shape.logit_softcap
        if head.form:
            tile = tiling.several(head)
            kernels.multiply_scores[(-(-head.rows // tile.rows),)](
                head.words, self._arrange(x), logits, peaks, count, head.rows, head.columns,
                head.outputs, head.number, softcap, padded(count), *tile, self._pdl,
                num_warps=tile.warps, launch_pdl=self._pdl,
            )  # fmt: skip
            return
        product(x, head.data[: head.outputs], logits)
        kernels.peaks_of[(count, peaks.shape[1])](logits, peaks, softcap, head.outputs, num_warps=1)

    def _settle(
        self, count: int, parts: int, norm: torch.Tensor, post: torch.Tensor | None, scale: float
    ) -> None:
        width = self.network.shape.width
        kernels.settle[(count,)](
            self._parts, count * width, norm if post is None else post, self._h, norm, self._x,
            self.network.shape.norm_eps, scale, parts, width, covering(width), post is not None,
            8, self._pdl, num_warps=8, launch_pdl=self._pdl,
        )  # fmt: skip


_MM_INTO: Final[Any] = getattr(torch.ops.aten.mm, "dtype_out", None)


def product(
    x: torch.Tensor, weight: torch.Tensor, into: torch.Tensor | None = None
) -> torch.Tensor:
    """float32 x · weightᵀ, in ``into`` if it is given."""
    if x.dtype != weight.dtype:
        x = x.to(weight.dtype)
    if not x.is_cuda or x.dtype == torch.float32:
        return torch.mm(x.float(), weight.float().t(), out=into)
    if into is not None and _MM_INTO is not None:
        found: torch.Tensor = _MM_INTO(x, weight.t(), torch.float32, out=into)
        return found
    found = torch.mm(x, weight.t(), out_dtype=torch.float32)
    return found if into is None else into.copy_(found)


def padded(count: int) -> int:
    """Rows the tensor core computes for ``count`` of them: a power of two, 8 at least."""
    return max(8, covering(count))
