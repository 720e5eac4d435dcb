"""Gemma 3, text only: five layers of six see a window, queries and keys are normed."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F  # noqa: N812

from lhama.backends.pytorch.batch import Batch
from lhama.backends.pytorch.hyperparameters import Hyperparameters
from lhama.backends.pytorch.kv_cache import KVCache
from lhama.backends.pytorch.layers import (
    Attention,
    GatedMLP,
    Head,
    Linear,
    RMSNorm,
    Rope,
    views,
)
from lhama.backends.pytorch.weights import Weights

_LAYERS_OF_27B = 62


class Gemma3:
    """Blocks with norms before and after both halves, GeGLU, and RoPE of two bases.

    The files hold the norms' weights with their +1 folded in.
    """

    def __init__(
        self, shape: Hyperparameters, weights: Weights, context: int, device: torch.device
    ) -> None:
        self._device = device
        self._window = shape.window
        self._local = shape.window_pattern
        self._scale = shape.width**0.5
        self._softcap = shape.logit_softcap
        self._head = Head.load(weights, shape.vocab, shape.width, shape.norm_eps)
        self._blocks = [Block(shape, weights, f"blk.{i}") for i in range(shape.layers)]
        # The windowed layers keep their own base and stay unscaled.
        self._rope = Rope(shape.head_dim, context, shape.rope_base, device, shape.rope_scale)
        self._local_rope = Rope(shape.head_dim, context, shape.window_rope_base, device)

    def forward(self, batch: Batch, ids: torch.Tensor, cache: KVCache) -> torch.Tensor:
        x = self._head.embed(ids) * self._scale
        rows, seen = self._rope.rows(batch.positions), views(batch, 0, self._device)
        local_rows = self._local_rope.rows(batch.positions)
        local_seen = views(batch, self._window, self._device)
        for layer, (block, local) in enumerate(zip(self._blocks, self._local, strict=True)):
            mixed = block.attention(
                block.attention_norm(x),
                layer,
                cache,
                batch.cells,
                local_rows if local else rows,
                local_seen if local else seen,
            )
            x = x + block.attention_post_norm(mixed)
            x = x + block.mlp_post_norm(block.mlp(block.mlp_norm(x)))
        return x

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        logits = self._head.logits(hidden)
        if self._softcap:
            logits = torch.tanh(logits / self._softcap) * self._softcap
        return logits

    def normed(self, hidden: torch.Tensor) -> torch.Tensor:
        return self._head.norm(hidden)


class Block:
    """Norms before and after both halves; also EmbeddingGemma's."""

    def __init__(self, shape: Hyperparameters, weights: Weights, prefix: str) -> None:
        width, head_dim, eps = shape.width, shape.head_dim, shape.norm_eps
        queries, keys = shape.heads * head_dim, shape.kv_heads * head_dim
        # The 27B alone divides by the root of width / heads.
        divisor = width // shape.heads if shape.layers == _LAYERS_OF_27B else head_dim
        self.attention_norm = RMSNorm.load(weights, f"{prefix}.attn_norm", width, eps)
        self.attention = Attention(
            Linear.load(weights, f"{prefix}.attn_q", width, queries),
            Linear.load(weights, f"{prefix}.attn_k", width, keys),
            Linear.load(weights, f"{prefix}.attn_v", width, keys),
            Linear.load(weights, f"{prefix}.attn_output", queries, width),
            head_dim,
            scale=divisor**-0.5,
            query_norm=RMSNorm.load(weights, f"{prefix}.attn_q_norm", head_dim, eps),
            key_norm=RMSNorm.load(weights, f"{prefix}.attn_k_norm", head_dim, eps),
        )
        self.attention_post_norm = RMSNorm.load(
            weights, f"{prefix}.post_attention_norm", width, eps
        )
        self.mlp_norm = RMSNorm.load(weights, f"{prefix}.ffn_norm", width, eps)
        self.mlp = GatedMLP.load(
            weights, prefix, width, shape.hidden, partial(F.gelu, approximate="tanh")
        )
        self.mlp_post_norm = RMSNorm.load(weights, f"{prefix}.post_ffw_norm", width, eps)
