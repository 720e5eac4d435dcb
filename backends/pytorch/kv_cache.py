"""Keys and values of all layers, for each slot a run of ``context`` positions."""

from __future__ import annotations

import torch

from lhama.backends.pytorch.hyperparameters import Hyperparameters
from lhama.plugins.backend import BackendError, Copy, KvOp, Trim


class KVCache:
    """Two tensors of [layers, slots, context, kv_heads, head_dim].

    Cells are addressed by ``slot * context + position``. What lies behind a slot's length is
    never read, so forgetting costs nothing and the memory needs no clearing: on the processor
    pages that were never written take none.
    """

    def __init__(
        self,
        shape: Hyperparameters,
        slots: int,
        context: int,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self.slots = slots
        self.context = context
        size = (shape.layers, slots, context, shape.kv_heads, shape.head_dim)
        self.keys = torch.empty(size, device=device, dtype=dtype)
        self.values = torch.empty(size, device=device, dtype=dtype)

    def write(
        self, layer: int, cells: torch.Tensor, keys: torch.Tensor, values: torch.Tensor
    ) -> None:
        """Store one layer's keys and values, each [tokens, kv_heads, head_dim], at ``cells``."""
        self.keys[layer].flatten(0, 1).index_copy_(0, cells, keys)
        self.values[layer].flatten(0, 1).index_copy_(0, cells, values)

    def apply(self, operation: KvOp) -> None:
        match operation:
            case Trim():
                pass  # positions behind the next token are never read
            case Copy(source, target, length):
                self.keys[:, target, :length] = self.keys[:, source, :length]
                self.values[:, target, :length] = self.values[:, source, :length]
            case _:
                raise BackendError("the PyTorch backend cannot shift its cache")
