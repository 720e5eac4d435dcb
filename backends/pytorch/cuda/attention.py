"""Enqueues attention: rows with one new token each, and chunks of prompts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from lhama.backends.pytorch.cuda.cache import Cache
from lhama.backends.pytorch.cuda.kernels import attention as kernels
from lhama.backends.pytorch.cuda.kernels import prompts
from lhama.backends.pytorch.cuda.network import Block, Network
from lhama.backends.pytorch.cuda.rows import Rows

if TYPE_CHECKING:
    from lhama.backends.pytorch.cuda.single import Vector

SPLITS = 16
TILE = 32
QUERIES = 64
"""Of a prompt's tokens in one program."""


def covering(number: int) -> int:
    """The next power of two."""
    return 1 << (number - 1).bit_length()


def splits_for(length: int) -> int:
    """Splits that rows of at most ``length`` positions have: a power of two."""
    return min(SPLITS, covering(max(1, -(-length // TILE))))


class Attention:
    """Scratch and constants; one for all layers."""

    def __init__(self, network: Network, cache: Cache, rows: Rows, *, pdl: bool) -> None:
        shape, device = network.shape, cache.tables.device
        self._network = network
        self._cache = cache
        self._rows = rows
        self._pdl = pdl
        count = rows.count
        self._parts = torch.zeros(count, shape.heads, SPLITS, shape.head_dim, device=device)
        self._states = torch.zeros(count, shape.heads, SPLITS, 2, device=device)
        self._tickets = torch.zeros(count, shape.kv_heads, dtype=torch.int32, device=device)
        self._group = covering(shape.heads // shape.kv_heads)
        self._width = max(32, covering(shape.head_dim))
        # Programs of wide heads need more registers than four warps have.
        self._warps = 8 if self._group * self._width > 512 else 4

    def one(self, layer: int, block: Block, qkv: torch.Tensor, y: Vector, splits: int) -> None:
        """Row 0, for ``Single``."""
        self._attend(layer, block, qkv, 1, splits, (y.y, y.yf, y.yf), (y.ints, y.floats, False))

    def many(
        self, layer: int, block: Block, qkv: torch.Tensor, y: torch.Tensor, count: int, splits: int
    ) -> None:
        """Rows 0 … count-1, one token each."""
        self._attend(layer, block, qkv, count, splits, (qkv, qkv, y), (False, False, True))

    def _attend(
        self, layer: int, block: Block, qkv: torch.Tensor, count: int, splits: int,
        outputs: tuple[torch.Tensor, ...], kinds: tuple[bool, ...],
    ) -> None:  # fmt: skip
        shape, rows, cache = self._network.shape, self._rows, self._cache
        rope, norms = self._turning(block)
        kernels.attend[(count, shape.kv_heads, splits)](
            qkv, *rope, *norms, shape.norm_eps, *cache.layer(layer), cache.tables, rows["slots"],
            rows["positions"], self._parts, self._states, self._tickets, *outputs,
            shape.heads, shape.kv_heads, shape.head_dim, shape.head_dim, self._group, self._width,
            self._network.traits.attention_scale, block.query_norm is not None,
            shape.window if block.local else 0, self._network.traits.attention_softcap,
            cache.per_slot, cache.quantised, *kinds, self._warps, self._pdl,
            num_warps=self._warps, launch_pdl=self._pdl,
        )  # fmt: skip

    def chunks(
        self, layer: int, block: Block, qkv: torch.Tensor, queries: torch.Tensor, y: torch.Tensor,
        tokens: tuple[torch.Tensor, torch.Tensor], blocks: torch.Tensor,
    ) -> None:  # fmt: skip
        """Tokens of prompts, with slots and positions; ``blocks`` int32 [4, n] cuts them up."""
        shape, cache = self._network.shape, self._cache
        rope, norms = self._turning(block)
        kernels.spread[(len(qkv),)](
            qkv, *rope, *norms, shape.norm_eps, *cache.layer(layer), cache.tables, *tokens,
            queries, shape.heads, shape.kv_heads, shape.head_dim, shape.head_dim,
            covering(shape.heads), covering(shape.kv_heads), self._width,
            self._network.traits.attention_scale, block.query_norm is not None, cache.per_slot,
            cache.quantised, 4, num_warps=4,
        )  # fmt: skip
        prompts.attend_chunks[(blocks.shape[1], shape.heads)](
            queries, *cache.layer(layer), cache.tables, *blocks.unbind(0), y,
            shape.heads, shape.kv_heads, shape.head_dim, self._width,
            shape.window if block.local else 0, self._network.traits.attention_softcap,
            cache.per_slot, cache.quantised, QUERIES, num_warps=4, num_stages=2,
        )  # fmt: skip

    def _turning(
        self, block: Block
    ) -> tuple[tuple[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]:
        """Tables of the block's rotation, and its norms of heads (anything where it has none)."""
        rope = self._network.local_rope if block.local else self._network.rope
        query = block.query_norm if block.query_norm is not None else rope.cos
        key = block.key_norm if block.key_norm is not None else rope.cos
        return (rope.cos, rope.sin), (query, key)
