"""Rotary positions: angles by position and frequency, and the ways to stretch them."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from lhama.backends.pytorch.hyperparameters import Hyperparameters, Yarn

Find = Callable[[str, int], torch.Tensor | None]
"""A vector of a file, float32, by name and size; ``None`` if there is none of that name."""


class Rope:
    """Turns dimension i of a head with i + d/2, d being the ``dims`` that are turned."""

    def __init__(
        self,
        dims: int,
        context: int,
        base: float,
        device: torch.device,
        scale: float = 1.0,
        factors: torch.Tensor | None = None,
        *,
        magnitude: float = 1.0,
        yarn: Yarn | None = None,
    ) -> None:
        """``scale``: what positions are multiplied with, by ``yarn`` slow frequencies only.
        ``factors`` [dims/2] divide the frequencies: Llama 3's and Phi's. ``magnitude``: of
        cosines and sines."""
        # In float64: at position 30,000 a float32 angle is off in the fourth digit.
        exponents = torch.arange(0, dims, 2, dtype=torch.float64) / dims
        frequencies = base**-exponents
        if factors is not None:
            frequencies = frequencies / factors.to("cpu", torch.float64)
        scales = torch.full_like(frequencies, scale)
        if yarn is not None:
            stretched = _slowness(dims, base, yarn)
            scales = scale * stretched + (1.0 - stretched)
            magnitude *= 1.0 + 0.1 * math.log(1.0 / scale)
        positions = torch.arange(context, dtype=torch.float64)
        angles = torch.outer(positions, frequencies * scales)
        self.cos = (angles.cos() * magnitude).to(device, torch.float32)
        self.sin = (angles.sin() * magnitude).to(device, torch.float32)

    def rows(self, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Cosines and sines, each [tokens, 1, dims/2], for a step's positions."""
        return self.cos[positions].unsqueeze(1), self.sin[positions].unsqueeze(1)


def _slowness(dims: int, base: float, yarn: Yarn) -> torch.Tensor:
    """float64 [dims/2]: 0 for frequencies that turn often in the old context, 1 for those that
    hardly do, a ramp between."""

    def dimension(turns: float) -> float:
        return dims * math.log(yarn.context / (turns * 2 * math.pi)) / (2 * math.log(base))

    low = max(0.0, math.floor(dimension(yarn.fast)))
    high = min(dims - 1.0, math.ceil(dimension(yarn.slow)))
    pairs = torch.arange(dims // 2, dtype=torch.float64)
    return ((pairs - low) / max(0.001, high - low)).clamp(0.0, 1.0)


def ropes(
    shape: Hyperparameters, find: Find, context: int, device: torch.device
) -> tuple[Rope, Rope]:
    """For layers that see everything, and for those with a window."""
    factors = _factors(shape, find, context)
    rope = Rope(
        shape.rotated, context, shape.rope_base, device, shape.rope_scale, factors,
        magnitude=shape.rope_magnitude, yarn=shape.yarn,
    )  # fmt: skip
    if not shape.window_rope_base:
        return rope, rope
    return rope, Rope(shape.rotated, context, shape.window_rope_base, device)


def _factors(shape: Hyperparameters, find: Find, context: int) -> torch.Tensor | None:
    """Llama 3's, or Phi's: another set for contexts beyond the trained one."""
    kind = "long" if context > shape.rope_context else "short"
    for name in ("rope_freqs.weight", f"rope_factors_{kind}.weight"):
        if (factors := find(name, shape.rotated // 2)) is not None:
            return factors
    return None


def rotate(x: torch.Tensor, rows: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """Turn ``x`` [tokens, heads, head_dim] by its positions' angles; what is behind the turned
    dimensions stays."""
    cos, sin = rows
    dims = 2 * cos.shape[-1]
    low, high = x[..., :dims].float().chunk(2, dim=-1)
    turned = (low * cos - high * sin, high * cos + low * sin)
    if dims == x.shape[-1]:
        return torch.cat(turned, dim=-1)
    return torch.cat((*turned, x[..., dims:].float()), dim=-1)
