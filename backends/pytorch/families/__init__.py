"""One module for each family of models: what its blocks look like."""

from __future__ import annotations

from typing import Protocol

import torch

from lhama.backends.pytorch.batch import Batch
from lhama.backends.pytorch.families import gemma3, llama
from lhama.backends.pytorch.hyperparameters import Hyperparameters
from lhama.backends.pytorch.kv_cache import KVCache
from lhama.backends.pytorch.weights import Weights


class Model(Protocol):
    """A loaded family."""

    def forward(self, batch: Batch, ids: torch.Tensor, cache: KVCache) -> torch.Tensor:
        """Hidden states [tokens, width], float32, before the last norm; fills the cache."""
        ...

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """float32 [tokens, vocab]."""
        ...

    def normed(self, hidden: torch.Tensor) -> torch.Tensor:
        """float32 [tokens, width]: what embeddings are made of."""
        ...


def build(shape: Hyperparameters, weights: Weights, context: int, device: torch.device) -> Model:
    """Load a model whose positions go up to ``context``."""
    if shape.family == "gemma3":
        return gemma3.Gemma3(shape, weights, context, device)
    return llama.Llama(shape, weights, context, device)
