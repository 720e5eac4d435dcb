"""What transformer blocks are made of. Activations are flat: [tokens, width].

The residual stream stays in float32 whatever the weights are: it costs next to nothing, and
Gemma's grows beyond what float16 holds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812

from lhama.backends.pytorch.adapters import Change
from lhama.backends.pytorch.batch import Batch, Span
from lhama.backends.pytorch.kv_cache import KVCache
from lhama.backends.pytorch.rope import rotate
from lhama.backends.pytorch.weights import Weights


class Linear:
    """y = x·Wᵀ (+ b), computed in the weight's type, and what adapters add to it."""

    def __init__(
        self,
        weight: torch.Tensor,
        bias: torch.Tensor | None = None,
        changes: tuple[Change, ...] = (),
    ) -> None:
        self.weight = weight
        self.bias = bias
        self.changes = changes

    @classmethod
    def load(cls, weights: Weights, name: str, inputs: int, outputs: int) -> Linear:
        """``name`` without ``.weight``; a bias is taken if the file has one."""
        bias = f"{name}.bias"
        return cls(
            weights.take(f"{name}.weight", outputs, inputs),
            weights.take(bias, outputs) if bias in weights else None,
            weights.changes(f"{name}.weight", outputs, inputs),
        )

    def split(self, *sizes: int) -> list[Linear]:
        """Its outputs in parts, each a product of its own."""
        biases = [None] * len(sizes) if self.bias is None else self.bias.split(sizes)
        changes = [change.split(sizes) for change in self.changes]
        return [
            Linear(weight, biases[part], tuple(parts[part] for parts in changes))
            for part, weight in enumerate(self.weight.split(sizes))
        ]

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        y = F.linear(x.to(self.weight.dtype), self.weight, self.bias)
        for change in self.changes:
            y = y + change(x)
        return y


class RMSNorm:
    """Divides by the root mean square over the last dimension; in float32."""

    def __init__(self, weight: torch.Tensor, eps: float) -> None:
        self.weight = weight
        self.eps = eps

    @classmethod
    def load(cls, weights: Weights, name: str, size: int, eps: float) -> RMSNorm:
        return cls(weights.take(f"{name}.weight", size, dtype=torch.float32), eps)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return F.rms_norm(x.float(), self.weight.shape, self.weight, self.eps)


@dataclass(frozen=True, slots=True)
class View:
    """What one span's queries see of its slot: positions ``start`` to the span's end."""

    span: Span
    start: int
    mask: torch.Tensor | None
    """bool [queries, keys], true where a query sees a key; ``None`` if all see all."""


def views(batch: Batch, window: int, device: torch.device) -> list[View]:
    """Each span's view; with a ``window`` a query sees itself and ``window - 1`` before it."""
    found: list[View] = []
    for span in batch.spans:
        start = max(span.origin, span.position - window + 1) if window else span.origin
        mask = None
        if span.end - span.begin > 1:
            queries = torch.arange(span.position, span.length, device=device).unsqueeze(1)
            keys = torch.arange(start, span.length, device=device)
            mask = keys <= queries
            if window:
                mask &= keys > queries - window
        found.append(View(span, start, mask))
    return found


def attend(
    queries: torch.Tensor,
    cache: KVCache,
    layer: int,
    seen: list[View],
    scale: float,
    softcap: float = 0.0,
) -> torch.Tensor:
    """Grouped-query attention of [tokens, heads, head_dim], row by row over the slots' caches.

    Row by row, each over exactly its own length: nothing of a row's result depends on the rows
    beside it, and what a slot held before is never touched.
    """
    tokens, heads, head_dim = queries.shape
    kv_heads = cache.keys.shape[3]
    out = torch.empty_like(queries)
    for view in seen:
        span = view.span
        kept = slice(view.start, span.length)
        keys = cache.keys[layer, span.slot, kept].transpose(0, 1)  # [kv_heads, keys, head_dim]
        values = cache.values[layer, span.slot, kept].transpose(0, 1)
        count = span.end - span.begin
        grouped = queries[span.begin : span.end].view(count, kv_heads, -1, head_dim)
        if view.mask is None:  # the one query's heads stand in for queries
            mixed = _mix(
                grouped.permute(1, 0, 2, 3).flatten(1, 2).unsqueeze(0),
                keys.unsqueeze(0),
                values.unsqueeze(0),
                None,
                scale,
                softcap,
            )
            out[span.begin] = mixed.view(heads, head_dim)
        else:
            group = heads // kv_heads
            mixed = _mix(
                grouped.permute(1, 2, 0, 3),  # [kv_heads, group, queries, head_dim]
                keys.unsqueeze(1).expand(-1, group, -1, -1),
                values.unsqueeze(1).expand(-1, group, -1, -1),
                view.mask,
                scale,
                softcap,
            )
            out[span.begin : span.end] = mixed.permute(2, 0, 1, 3).reshape(count, heads, head_dim)
    return out.view(tokens, heads * head_dim)


def _mix(
    queries: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    mask: torch.Tensor | None,
    scale: float,
    softcap: float,
) -> torch.Tensor:
    """Attention of [..., queries, head_dim] over [..., keys, head_dim]."""
    if not softcap:
        return F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask, scale=scale)
    scores = queries.float() @ keys.float().transpose(-1, -2) * scale
    scores = torch.tanh(scores / softcap) * softcap
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    return (scores.softmax(-1) @ values.float()).to(values.dtype)


class Attention:
    """Projections around ``attend``; with norms of queries and keys where the file has them."""

    def __init__(
        self,
        query: Linear,
        key: Linear,
        value: Linear,
        output: Linear,
        head_dim: int,
        scale: float,
        query_norm: RMSNorm | None = None,
        key_norm: RMSNorm | None = None,
        softcap: float = 0.0,
    ) -> None:
        self.query = query
        self.key = key
        self.value = value
        self.output = output
        self.head_dim = head_dim
        self.scale = scale
        self.query_norm = query_norm
        self.key_norm = key_norm
        self.softcap = softcap

    def __call__(
        self,
        x: torch.Tensor,
        layer: int,
        cache: KVCache,
        cells: torch.Tensor,
        rows: tuple[torch.Tensor, torch.Tensor],
        seen: list[View],
    ) -> torch.Tensor:
        queries, keys, values = self.project(x, rows)
        dtype = cache.keys.dtype
        cache.write(layer, cells, keys.to(dtype), values.to(dtype))
        return self.output(attend(queries.to(dtype), cache, layer, seen, self.scale, self.softcap))

    def project(
        self, x: torch.Tensor, rows: tuple[torch.Tensor, torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Queries, keys and values, the first two turned: [tokens, heads, head_dim] each."""
        tokens = x.shape[0]
        queries = self.query(x).view(tokens, -1, self.head_dim)
        keys = self.key(x).view(tokens, -1, self.head_dim)
        values = self.value(x).view(tokens, -1, self.head_dim)
        if self.query_norm is not None:
            queries = self.query_norm(queries)
        if self.key_norm is not None:
            keys = self.key_norm(keys)
        return rotate(queries, rows), rotate(keys, rows), values


class GatedMLP:
    """down(activation(gate(x)) · up(x)): SwiGLU or GeGLU by its activation."""

    def __init__(
        self,
        gate: Linear,
        up: Linear,
        down: Linear,
        activation: Callable[[torch.Tensor], torch.Tensor],
    ) -> None:
        self.gate = gate
        self.up = up
        self.down = down
        self.activation = activation

    @classmethod
    def load(
        cls,
        weights: Weights,
        prefix: str,
        width: int,
        hidden: int,
        activation: Callable[[torch.Tensor], torch.Tensor],
        *,
        fused: bool = False,
    ) -> GatedMLP:
        """``fused``: the file's ``ffn_up`` is gate and up below one another."""
        if fused:
            both = Linear.load(weights, f"{prefix}.ffn_up", width, 2 * hidden)
            gate, up = both.split(hidden, hidden)
        else:
            gate = Linear.load(weights, f"{prefix}.ffn_gate", width, hidden)
            up = Linear.load(weights, f"{prefix}.ffn_up", width, hidden)
        return cls(gate, up, Linear.load(weights, f"{prefix}.ffn_down", hidden, width), activation)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(self.activation(self.gate(x)) * self.up(x))


class Head:
    """The token embedding and the way back from hidden states to logits."""

    def __init__(self, embedding: torch.Tensor, output: Linear, norm: RMSNorm) -> None:
        self.embedding = embedding
        self.output = output
        self.norm = norm

    @classmethod
    def load(cls, weights: Weights, vocab: int, width: int, eps: float) -> Head:
        """Without an output tensor of its own the embedding serves both ways."""
        embedding = weights.take("token_embd.weight", vocab, width)
        if "output.weight" in weights:
            output = Linear.load(weights, "output", width, vocab)
        else:
            output = Linear(embedding)
        return cls(embedding, output, RMSNorm.load(weights, "output_norm", width, eps))

    def embed(self, ids: torch.Tensor) -> torch.Tensor:
        return F.embedding(ids, self.embedding).float()

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """float32 [tokens, vocab] from hidden states before the last norm."""
        normed, weight = self.norm(hidden), self.output.weight
        plain = self.output.bias is None and not self.output.changes
        if weight.is_cuda and weight.dtype != torch.float32 and plain:
            # Rounded to bfloat16, logits near 20 would be an eighth apart.
            return torch.mm(normed.to(weight.dtype), weight.t(), out_dtype=torch.float32)
        return self.output(normed).float()
