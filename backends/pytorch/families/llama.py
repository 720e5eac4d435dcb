"""Llama 1 to 3 and what shares their blocks: Mistral, SmolLM2, TinyLlama, Qwen 2 and 3 …"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812

from lhama.backends.pytorch.adapters import Change
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


class Llama:
    """Pre-norm blocks of attention and SwiGLU."""

    def __init__(
        self, shape: Hyperparameters, weights: Weights, context: int, device: torch.device
    ) -> None:
        self._device = device
        self._head = Head.load(weights, shape.vocab, shape.width, shape.norm_eps)
        self._blocks = [_Block(shape, weights, f"blk.{i}") for i in range(shape.layers)]
        half = shape.head_dim // 2
        factors = None
        if "rope_freqs.weight" in weights:
            factors = weights.take("rope_freqs.weight", half, dtype=torch.float32)
        self._rope = Rope(
            shape.head_dim, context, shape.rope_base, device, shape.rope_scale, factors
        )

    def forward(self, batch: Batch, ids: torch.Tensor, cache: KVCache) -> torch.Tensor:
        x = self._head.embed(ids)
        rows = self._rope.rows(batch.positions)
        seen = views(batch, 0, self._device)
        for layer, block in enumerate(self._blocks):
            x = x + block.attention(block.attention_norm(x), layer, cache, batch.cells, rows, seen)
            x = x + block.mlp(block.mlp_norm(x))
        return x

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        return self._head.logits(hidden)

    def normed(self, hidden: torch.Tensor) -> torch.Tensor:
        return self._head.norm(hidden)


class _Block:
    def __init__(self, shape: Hyperparameters, weights: Weights, prefix: str) -> None:
        width, head_dim, eps = shape.width, shape.head_dim, shape.norm_eps
        queries, keys = shape.heads * head_dim, shape.kv_heads * head_dim
        query = Linear.load(weights, f"{prefix}.attn_q", width, queries)
        key = Linear.load(weights, f"{prefix}.attn_k", width, keys)
        if shape.family == "llama":
            query, key = _halved(query, head_dim), _halved(key, head_dim)
        self.attention_norm = RMSNorm.load(weights, f"{prefix}.attn_norm", width, eps)
        self.attention = Attention(
            query,
            key,
            Linear.load(weights, f"{prefix}.attn_v", width, keys),
            Linear.load(weights, f"{prefix}.attn_output", queries, width),
            head_dim,
            scale=head_dim**-0.5,
            query_norm=_norm(weights, f"{prefix}.attn_q_norm", head_dim, eps),
            key_norm=_norm(weights, f"{prefix}.attn_k_norm", head_dim, eps),
        )
        self.mlp_norm = RMSNorm.load(weights, f"{prefix}.ffn_norm", width, eps)
        self.mlp = GatedMLP.load(weights, prefix, width, shape.hidden, F.silu)


def _norm(weights: Weights, name: str, size: int, eps: float) -> RMSNorm | None:
    """A norm of queries or keys, where the model has one (Qwen 3)."""
    return RMSNorm.load(weights, name, size, eps) if f"{name}.weight" in weights else None


def _halved(projection: Linear, head_dim: int) -> Linear:
    """Reorder each head's outputs for ``Rope``.

    The files of ``llama`` turn dimension 2i with 2i+1; ``Rope`` turns i with i + head_dim/2.
    Queries and keys are reordered alike, so their products stay what they were.
    """

    def reorder(tensor: torch.Tensor) -> torch.Tensor:
        pairs = tensor.unflatten(0, (-1, head_dim // 2, 2))
        return pairs.transpose(1, 2).flatten(0, 2).contiguous()

    bias = projection.bias
    changes = tuple(Change(change.a, reorder(change.b)) for change in projection.changes)
    return Linear(reorder(projection.weight), None if bias is None else reorder(bias), changes)
