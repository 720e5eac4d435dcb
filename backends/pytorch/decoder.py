"""Models that generate: one stack of blocks, which each family's traits shape."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F  # noqa: N812

from lhama.backends.pytorch.adapters import Change
from lhama.backends.pytorch.batch import Batch
from lhama.backends.pytorch.experts import Experts
from lhama.backends.pytorch.families import traits_of
from lhama.backends.pytorch.families.family import Traits
from lhama.backends.pytorch.hyperparameters import Hyperparameters
from lhama.backends.pytorch.kv_cache import KVCache
from lhama.backends.pytorch.layers import Attention, GatedMLP, Head, Linear, RMSNorm, views
from lhama.backends.pytorch.rope import ropes
from lhama.backends.pytorch.weights import Weights


class Decoder:
    """A loaded model of any family; positions go up to ``context``."""

    def __init__(
        self, shape: Hyperparameters, weights: Weights, context: int, device: torch.device
    ) -> None:
        traits = traits_of(shape)
        self._device = device
        self._window = shape.window
        self._local = shape.window_pattern
        self._scale = traits.embedding_scale
        self._softcap = shape.logit_softcap
        self._head = Head.load(weights, shape.vocab, shape.width, shape.norm_eps)
        self._blocks = [Block(shape, traits, weights, f"blk.{i}") for i in range(shape.layers)]
        self._rope, self._local_rope = ropes(shape, weights.vector, context, device)

    def forward(self, batch: Batch, ids: torch.Tensor, cache: KVCache) -> torch.Tensor:
        """Hidden states [tokens, width], float32, before the last norm; fills the cache."""
        x = self._head.embed(ids) * self._scale
        rows, seen = self._rope.rows(batch.positions), views(batch, 0, self._device)
        local_rows, local_seen = rows, seen
        if any(self._local):
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
        """float32 [tokens, vocab]."""
        logits = self._head.logits(hidden)
        if self._softcap:
            logits = torch.tanh(logits / self._softcap) * self._softcap
        return logits

    def normed(self, hidden: torch.Tensor) -> torch.Tensor:
        """float32 [tokens, width]: what embeddings are made of."""
        return self._head.norm(hidden)


class Block:
    """One layer: attention, then an MLP or a mixture of them, each with its norms."""

    def __init__(
        self, shape: Hyperparameters, traits: Traits, weights: Weights, prefix: str
    ) -> None:
        width, head_dim, eps = shape.width, shape.head_dim, shape.norm_eps
        queries = shape.heads * head_dim
        gelu = partial(F.gelu, approximate="tanh")
        activation = gelu if traits.gelu else F.silu

        def norm(name: str, size: int = width) -> RMSNorm:
            return RMSNorm.load(weights, f"{prefix}.{name}", size, eps)

        self.attention_norm = norm("attn_norm")
        self.attention = Attention(
            *_projections(shape, traits, weights, prefix),
            Linear.load(weights, f"{prefix}.attn_output", queries, width),
            head_dim,
            scale=traits.attention_scale,
            query_norm=norm("attn_q_norm", head_dim) if traits.head_norms else None,
            key_norm=norm("attn_k_norm", head_dim) if traits.head_norms else None,
            softcap=traits.attention_softcap,
        )
        self.attention_post_norm = norm("post_attention_norm") if traits.post_norms else _same
        self.mlp_norm = norm("ffn_norm")
        self.mlp: GatedMLP | Experts
        if shape.experts:
            self.mlp = Experts.load(weights, prefix, shape, activation)
        else:
            self.mlp = GatedMLP.load(
                weights, prefix, width, shape.hidden, activation, fused=traits.fused
            )
        self.mlp_post_norm = norm("post_ffw_norm") if traits.post_norms else _same


def _same(x: torch.Tensor) -> torch.Tensor:
    return x


def _projections(
    shape: Hyperparameters, traits: Traits, weights: Weights, prefix: str
) -> tuple[Linear, Linear, Linear]:
    """Of queries, keys and values."""
    width, head_dim = shape.width, shape.head_dim
    queries, keys = shape.heads * head_dim, shape.kv_heads * head_dim
    if traits.fused:
        fused = Linear.load(weights, f"{prefix}.attn_qkv", width, queries + 2 * keys)
        query, key, value = fused.split(queries, keys, keys)
    else:
        query = Linear.load(weights, f"{prefix}.attn_q", width, queries)
        key = Linear.load(weights, f"{prefix}.attn_k", width, keys)
        value = Linear.load(weights, f"{prefix}.attn_v", width, keys)
    if traits.neighbours:
        query, key = _halved(query, head_dim), _halved(key, head_dim)
    return query, key, value


def _halved(projection: Linear, head_dim: int) -> Linear:
    """Reorder each head's outputs for ``Rope``, which turns i with i + head_dim/2 where the file
    turns 2i with 2i+1. Queries and keys are reordered alike: their products stay what they were.
    """

    def reorder(tensor: torch.Tensor) -> torch.Tensor:
        pairs = tensor.unflatten(0, (-1, head_dim // 2, 2))
        return pairs.transpose(1, 2).flatten(0, 2).contiguous()

    bias = projection.bias
    changes = tuple(Change(change.a, reorder(change.b)) for change in projection.changes)
    return Linear(reorder(projection.weight), None if bias is None else reorder(bias), changes)
