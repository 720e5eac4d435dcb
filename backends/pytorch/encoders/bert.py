"""BERT and what became of it: all-MiniLM, BGE, GTE, mxbai; with rotary positions nomic-embed."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812

from lhama.backends.pytorch.bert_parameters import BertParameters
from lhama.backends.pytorch.encoders.encoder import Classifier, Pooling, Texts
from lhama.backends.pytorch.layers import GatedMLP, Linear
from lhama.backends.pytorch.rope import Rope, rotate
from lhama.backends.pytorch.weights import Weights

Rows = tuple[torch.Tensor, torch.Tensor]


class Bert:
    """``lhama.backends.pytorch.encoders.encoder.Encoder``: blocks with a norm behind each half.

    All of a text is of the first token type, as llama.cpp has it.
    """

    def __init__(
        self, shape: BertParameters, weights: Weights, context: int, device: torch.device
    ) -> None:
        width = shape.width
        self._device = device
        self._pooling = Pooling(shape.pooling or Pooling.MEAN)
        self._tokens = weights.take("token_embd.weight", shape.vocab, width)
        self._type = torch.zeros(width, device=device)
        if shape.token_types:
            self._type = weights.take("token_types.weight", shape.token_types, width)[0].float()
        self._positions = self._rope = None
        if shape.family == "bert":
            self._positions = weights.take("position_embd.weight", shape.context, width)
        else:
            self._rope = Rope(width // shape.heads, context, shape.rope_base, device)
        self._norm = LayerNorm.load(weights, "token_embd_norm", width, shape.norm_eps)
        self._blocks = [_Block(shape, weights, f"blk.{i}") for i in range(shape.layers)]
        self._head = None
        if self._pooling is Pooling.RANK:
            self._head = Classifier(weights, width, shape.outputs)

    def vectors(self, inputs: Sequence[Sequence[int]]) -> torch.Tensor:
        texts = Texts.build(inputs, self._device)
        x = F.embedding(texts.ids, self._tokens).float() + self._type
        if self._positions is not None:
            x = x + F.embedding(texts.positions, self._positions)
        rows = self._rope.rows(texts.positions) if self._rope is not None else None
        x = self._norm(x)
        for block in self._blocks:
            x = block(x, texts, rows)
        pooled = texts.pool(x, self._pooling)
        return self._head(pooled) if self._head is not None else pooled


class LayerNorm:
    """Over the last dimension, with a bias; in float32."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor, eps: float) -> None:
        self.weight = weight
        self.bias = bias
        self.eps = eps

    @classmethod
    def load(cls, weights: Weights, name: str, size: int, eps: float) -> LayerNorm:
        return cls(
            weights.take(f"{name}.weight", size, dtype=torch.float32),
            weights.take(f"{name}.bias", size, dtype=torch.float32),
            eps,
        )

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return F.layer_norm(x.float(), self.weight.shape, self.weight, self.bias, self.eps)


class _Block:
    """Attention and MLP, each added to its input and then normed."""

    def __init__(self, shape: BertParameters, weights: Weights, prefix: str) -> None:
        width = shape.width
        self._heads = shape.heads
        self._scale = (width // shape.heads) ** -0.5
        self._projections = _projections(weights, prefix, width)
        self._output = Linear.load(weights, f"{prefix}.attn_output", width, width)
        self._attention_norm = LayerNorm.load(
            weights, f"{prefix}.attn_output_norm", width, shape.norm_eps
        )
        self._mlp: GatedMLP | _MLP
        if f"{prefix}.ffn_gate.weight" in weights:
            self._mlp = GatedMLP.load(weights, prefix, width, shape.hidden, F.silu)
        else:
            self._mlp = _MLP(weights, prefix, width, shape.hidden)
        self._norm = LayerNorm.load(weights, f"{prefix}.layer_output_norm", width, shape.norm_eps)

    def __call__(self, x: torch.Tensor, texts: Texts, rows: Rows | None) -> torch.Tensor:
        queries, keys, values = (
            projected.unflatten(-1, (self._heads, -1))
            for projected in torch.cat([p(x) for p in self._projections], -1).chunk(3, -1)
        )
        if rows is not None:
            queries = rotate(queries, rows).to(values.dtype)
            keys = rotate(keys, rows).to(values.dtype)
        mixed = texts.attend(queries, keys, values, self._scale)
        x = self._attention_norm(x + self._output(mixed))
        return self._norm(x + self._mlp(x))


def _projections(weights: Weights, prefix: str, width: int) -> list[Linear]:
    """Of queries, keys and values: three, or one that does it all."""
    if f"{prefix}.attn_qkv.weight" in weights:
        return [Linear.load(weights, f"{prefix}.attn_qkv", width, 3 * width)]
    return [Linear.load(weights, f"{prefix}.attn_{part}", width, width) for part in "qkv"]


class _MLP:
    """down(gelu(up(x))), with the exact GELU the models were trained with."""

    def __init__(self, weights: Weights, prefix: str, width: int, hidden: int) -> None:
        self._up = Linear.load(weights, f"{prefix}.ffn_up", width, hidden)
        self._down = Linear.load(weights, f"{prefix}.ffn_down", hidden, width)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return self._down(F.gelu(self._up(x)))
