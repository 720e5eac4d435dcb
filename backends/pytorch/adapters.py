"""LoRA adapters: low-rank changes of a model's matrices, computed beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from lhama.backends.pytorch.weights import Weights
from lhama.plugins.backend import UnsupportedModel
from lhama.plugins.gguf import GGUF, GGUFError, read


@dataclass(frozen=True, slots=True)
class Change:
    """What is added to x·Wᵀ: (x·Aᵀ)·Bᵀ, the adapter's strength within B.

    Beside the matrix and not added into it, so that one in 16 bits loses nothing of it.
    """

    a: torch.Tensor
    """[rank, inputs]."""
    b: torch.Tensor
    """[outputs, rank]."""

    def split(self, sizes: Sequence[int]) -> list[Change]:
        """Of the matrix's outputs in parts."""
        return [Change(self.a, b) for b in self.b.split(list(sizes))]

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return x.to(self.a.dtype) @ self.a.t() @ self.b.t()


class Adapter:
    """One adapter's file, at full strength."""

    def __init__(self, path: str, base: GGUF, device: torch.device, dtype: torch.dtype) -> None:
        """Raises ``UnsupportedModel`` unless it was made for a model such as ``base``."""
        try:
            header = read(path)
        except (GGUFError, OSError) as error:
            raise UnsupportedModel(f"the adapter cannot be read: {error}") from error
        if (header.get_str("general.type"), header.get_str("adapter.type")) != ("adapter", "lora"):
            raise UnsupportedModel("the adapter is no LoRA adapter")
        if header.architecture != base.architecture:
            raise UnsupportedModel(
                f"the adapter is for {header.architecture} models, this is {base.architecture}"
            )
        self._weights = Weights(header, device, dtype)
        self._alpha = header.get_float("adapter.lora.alpha")
        self._left = set(header.tensors)

    def change(self, name: str, outputs: int, inputs: int) -> Change | None:
        """Of the matrix ``name``; ``None`` if the adapter leaves it as it is."""
        a, b = f"{name}.lora_a", f"{name}.lora_b"
        if a not in self._weights or b not in self._weights:
            return None
        rank = self._weights.shape(b)[-1]
        scale = self._alpha / rank if self._alpha else 1.0
        self._left -= {a, b}
        return Change(
            self._weights.take(a, rank, inputs), self._weights.take(b, outputs, rank) * scale
        )

    def check(self) -> None:
        """Raises ``UnsupportedModel`` where the model did not ask for all that there is."""
        if self._left:
            raise UnsupportedModel(
                f"the adapter changes {min(self._left)!r}, which is not supported"
            )
