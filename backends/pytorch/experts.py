"""Mixtures of experts: a router sends each token to a few of many MLPs."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812

from lhama.backends.pytorch.hyperparameters import Hyperparameters
from lhama.backends.pytorch.layers import Linear
from lhama.backends.pytorch.weights import Weights


class Experts:
    """Mixtral's and Qwen 3's: softmax over all experts, the best few, weighted to a sum of one."""

    def __init__(
        self,
        router: Linear,
        gate: torch.Tensor,
        up: torch.Tensor,
        down: torch.Tensor,
        used: int,
        activation: Callable[[torch.Tensor], torch.Tensor],
    ) -> None:
        """``gate`` and ``up`` [experts, hidden, width], ``down`` [experts, width, hidden];
        ``used``: experts for one token."""
        self.router = router
        self.gate = gate
        self.up = up
        self.down = down
        self.used = used
        self.activation = activation

    @classmethod
    def load(
        cls,
        weights: Weights,
        prefix: str,
        shape: Hyperparameters,
        activation: Callable[[torch.Tensor], torch.Tensor],
    ) -> Experts:
        count, hidden, width = shape.experts, shape.expert_hidden, shape.width
        return cls(
            Linear.load(weights, f"{prefix}.ffn_gate_inp", width, count),
            weights.take(f"{prefix}.ffn_gate_exps.weight", count, hidden, width),
            weights.take(f"{prefix}.ffn_up_exps.weight", count, hidden, width),
            weights.take(f"{prefix}.ffn_down_exps.weight", count, width, hidden),
            shape.experts_used,
            activation,
        )

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """[tokens, width] to float32 [tokens, width], expert by expert. Waits for the device to
        learn which are used: their number decides what is computed."""
        shares, chosen = self.router(x).float().softmax(-1).topk(self.used, dim=-1)
        shares = shares / shares.sum(-1, keepdim=True)
        y = torch.zeros_like(x, dtype=torch.float32)
        typed = x.to(self.gate.dtype)
        for expert in chosen.unique().tolist():
            tokens, nth = (chosen == expert).nonzero(as_tuple=True)
            some = typed[tokens]
            hidden = self.activation(F.linear(some, self.gate[expert]))
            hidden = hidden * F.linear(some, self.up[expert])
            said = F.linear(hidden, self.down[expert]).float()
            y.index_add_(0, tokens, said * shares[tokens, nth].unsqueeze(1))
        return y
