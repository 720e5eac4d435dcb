"""EmbeddingGemma: Gemma 3's blocks, seeing both ways, and two dense layers behind the pooling."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812

from lhama.backends.pytorch.decoder import Block
from lhama.backends.pytorch.encoders.encoder import Pooling, Texts
from lhama.backends.pytorch.families import traits_of
from lhama.backends.pytorch.hyperparameters import Hyperparameters
from lhama.backends.pytorch.layers import Linear, RMSNorm
from lhama.backends.pytorch.rope import ropes
from lhama.backends.pytorch.weights import Weights


class GemmaEmbedding:
    """``lhama.backends.pytorch.encoders.encoder.Encoder``."""

    def __init__(
        self, shape: Hyperparameters, weights: Weights, context: int, device: torch.device
    ) -> None:
        width, traits = shape.width, traits_of(shape)
        self._device = device
        self._pooling = Pooling(shape.pooling or Pooling.MEAN)
        self._window = shape.window
        self._local = shape.window_pattern
        self._scale = traits.embedding_scale
        self._tokens = weights.take("token_embd.weight", shape.vocab, width)
        self._blocks = [Block(shape, traits, weights, f"blk.{i}") for i in range(shape.layers)]
        self._norm = RMSNorm.load(weights, "output_norm", width, shape.norm_eps)
        self._rope, self._local_rope = ropes(shape, weights.vector, context, device)
        self._dense: list[Linear] = []
        for name in ("dense_2", "dense_3"):
            if f"{name}.weight" in weights:
                outputs = weights.shape(f"{name}.weight")[0]
                self._dense.append(Linear.load(weights, name, width, outputs))
                width = outputs

    def vectors(self, inputs: Sequence[Sequence[int]]) -> torch.Tensor:
        texts = Texts.build(inputs, self._device)
        x = F.embedding(texts.ids, self._tokens).float() * self._scale
        rows, local_rows = self._rope.rows(texts.positions), self._local_rope.rows(texts.positions)
        for block, local in zip(self._blocks, self._local, strict=True):
            attention = block.attention
            queries, keys, values = attention.project(
                block.attention_norm(x), local_rows if local else rows
            )
            mixed = texts.attend(
                queries.to(values.dtype),
                keys.to(values.dtype),
                values,
                attention.scale,
                self._window if local else 0,
            )
            x = x + block.attention_post_norm(attention.output(mixed))
            x = x + block.mlp_post_norm(block.mlp(block.mlp_norm(x)))
        pooled = texts.pool(self._norm(x), self._pooling)
        for dense in self._dense:
            pooled = dense(pooled)
        return pooled
