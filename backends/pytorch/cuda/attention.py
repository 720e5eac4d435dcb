"""Enqueues attention: one row's token, one token of each of many rows, chunks of prompts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import torch

from lhama.backends.pytorch.cuda.cache import Cache
from lhama.backends.pytorch.cuda.kernels import attention as kernels
from lhama.backends.pytorch.cuda.kernels import one_row, prompts
from lhama.backends.pytorch.cuda.network import Block, Network
from lhama.backends.pytorch.cuda.rows import Rows
from lhama.backends.pytorch.cuda.support import SMALL

if TYPE_CHECKING:
    from lhama.backends.pytorch.cuda.single import Vector

SPLITS: Final = 16
QUERIES: Final = 64
"""Of a prompt's tokens in one program."""
WARPS: Final = 8


def covering(number: int) -> int:
    """The next power of two."""
    return 1 << (number - 1).bit_length()


class Attention:
    """Scratch and constants; one for all layers."""

    def __init__(self, network: Network, cache: Cache, rows: Rows, most: int, *, pdl: bool) -> None:
        """``most`` tokens at once."""
        shape, device = network.shape, cache.tables.device
        self._network = network
        self._cache = cache
        self._rows = rows
        self._pdl = pdl
        count = rows.count  # of which at most half have one token each
        self._parts = torch.zeros(count, shape.heads, SPLITS, shape.head_dim, device=device)
        self._states = torch.zeros(count, shape.heads, SPLITS, 2, device=device)
        self._tickets = torch.zeros(count, shape.kv_heads, dtype=torch.int32, device=device)
        queries = shape.heads * shape.head_dim
        self._queries = torch.zeros(most, queries, dtype=torch.float16, device=device)
        self._plain = torch.zeros(1, queries, dtype=torch.float16, device=device)
        self._width = max(32, covering(shape.head_dim))
        # Wide heads need more registers than there are, 8-bit caches more instructions, and a
        # tensor core takes 16 heads at once.
        shared = shape.heads // shape.kv_heads
        self._fused = self._width <= 128 and shared <= 16 and not cache.quantised
        self._tile = WARPS * min(64, 2048 // self._width)
        tight = device.type == "cuda" and torch.cuda.get_device_capability(device) in SMALL
        self._stages = (1, 1) if tight and self._width > 128 else (3, 2)
        """Pages in shared memory at once, for rows and for prompts."""

    def splits_for(self, length: int) -> int:
        """Splits that a row of that many earlier positions has: a power of two."""
        if self._fused:
            return min(SPLITS, covering(max(1, -(-length // self._tile))))
        return SPLITS

    def one(self, layer: int, block: Block, qkv: torch.Tensor, y: Vector, splits: int) -> None:
        """Row 0, for ``Single``."""
        shape, rows, cache = self._network.shape, self._rows, self._cache
        if not self._fused:
            self.spread(layer, block, qkv.view(1, -1), (rows["slots"], rows["positions"]), 1)
            self.many(layer, block, self._plain, 1)
            one_row.pack[(self._plain.shape[1] // 16,)](
                self._plain, y.y, y.yf, self._plain.shape[1], y.ints, y.floats, self._pdl,
                num_warps=1, launch_pdl=self._pdl,
            )  # fmt: skip
            return
        rope, norms = self._turning(block)
        kernels.attend[(shape.kv_heads, splits)](
            qkv, *rope, *norms, shape.norm_eps, *cache.layer(layer)[:2], cache.tables,
            rows["slots"], rows["positions"], self._parts, self._states, self._tickets, y.y, y.yf,
            shape.heads, shape.kv_heads, shape.head_dim, shape.rotated,
            covering(shape.heads // shape.kv_heads), self._width,
            self._network.traits.attention_scale, block.query_norm is not None,
            shape.window if block.local else 0, self._network.traits.attention_softcap,
            cache.per_slot, y.ints, y.floats, cache.far, WARPS, self._pdl,
            num_warps=WARPS, launch_pdl=self._pdl,
        )  # fmt: skip

    def spread(
        self,
        layer: int,
        block: Block,
        qkv: torch.Tensor,
        tokens: tuple[torch.Tensor, torch.Tensor],
        parts: int,
    ) -> None:
        """Keys and values of tokens, with slots and positions, into the cache; keeps queries.

        ``qkv`` has ``parts`` parts below one another, to be summed.
        """
        shape, cache = self._network.shape, self._cache
        rope, norms = self._turning(block)
        count = len(qkv) // parts
        kernels.spread[(count,)](
            qkv, *rope, *norms, shape.norm_eps, *cache.layer(layer), cache.tables, *tokens,
            self._queries, count * qkv.shape[1], shape.heads, shape.kv_heads, shape.head_dim,
            shape.rotated, covering(shape.heads), covering(shape.kv_heads), self._width,
            self._network.traits.attention_scale, block.query_norm is not None, parts,
            cache.per_slot, cache.quantised, cache.far, 4, self._pdl,
            num_warps=4, launch_pdl=self._pdl,
        )  # fmt: skip

    def many(self, layer: int, block: Block, y: torch.Tensor, count: int) -> None:
        """The first ``count`` tokens that were spread: one for each row."""
        shape, rows, cache = self._network.shape, self._rows, self._cache
        prompts.attend_rows[(count, shape.kv_heads, SPLITS)](
            self._queries, *cache.layer(layer), cache.tables, rows["slots"], rows["positions"],
            self._parts, self._states, self._tickets, y,
            shape.heads, shape.kv_heads, shape.head_dim, self._width,
            max(16, covering(shape.heads // shape.kv_heads)),
            shape.window if block.local else 0, self._network.traits.attention_softcap,
            cache.per_slot, cache.quantised, cache.far, self._pdl,
            num_warps=4, num_stages=self._stages[0], launch_pdl=self._pdl,
        )  # fmt: skip

    def chunks(
        self,
        layer: int,
        block: Block,
        y: torch.Tensor,
        first: int,
        blocks: tuple[torch.Tensor, ...],
    ) -> None:
        """Tokens of prompts from the ``first`` that was spread; ``blocks`` cut them up."""
        shape, cache = self._network.shape, self._cache
        prompts.attend_chunks[(len(blocks[0]), shape.heads)](
            self._queries[first:], *cache.layer(layer), cache.tables, *blocks, y[first:],
            shape.heads, shape.kv_heads, shape.head_dim, self._width,
            shape.window if block.local else 0, self._network.traits.attention_softcap,
            cache.per_slot, cache.quantised, cache.far, QUERIES, self._pdl,
            num_warps=4, num_stages=self._stages[1], launch_pdl=self._pdl,
        )  # fmt: skip

    def _turning(
        self, block: Block
    ) -> tuple[tuple[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]:
        """Tables of the block's rotation, and its norms of heads (anything where it has none)."""
        rope = self._network.local_rope if block.local else self._network.rope
        query = block.query_norm if block.query_norm is not None else rope.cos
        key = block.key_norm if block.key_norm is not None else rope.cos
        return (rope.cos, rope.sin), (query, key)
