"""What tells a family of models from another, in words that every engine here can build from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lhama.backends.pytorch.hyperparameters import Hyperparameters


@dataclass(frozen=True, slots=True)
class Traits:
    """Plain are: a norm before each half of a block, SwiGLU, attention over everything."""

    neighbours: bool = False
    """The file's queries and keys turn dimension 2i with 2i+1, not i with i + head_dim/2."""
    fused: bool = False
    """Queries, keys and values are one matrix in the file, and so are gate and up."""
    gelu: bool = False
    """The MLP's activation is GELU (tanh), not SiLU."""
    post_norms: bool = False
    """What each half of a block gives is normed before it is added."""
    head_norms: bool = False
    """Queries and keys are normed, head by head."""
    embedding_scale: float = 1.0
    attention_scale: float = 0.0
    """What products of queries and keys are multiplied with; 0: by the root of a head's size."""
    attention_softcap: float = 0.0
    """c·tanh(x/c) of these products; 0: as they are."""


@dataclass(frozen=True, slots=True)
class Family:
    """One value of ``general.architecture``. Imports no torch: the daemon asks what is supported."""

    name: str
    traits: Callable[[Hyperparameters], Traits]
    window_period: int = 0
    """The last of so many layers sees everything, the others a window; 0: all see everything,
    whatever the file says. ``attention.sliding_window_pattern`` in a file goes before."""
    window_rope_base: float = 0.0
    """RoPE's base in layers with a window, unscaled, if the file has no other; 0: as elsewhere."""
    attention_softcap: float = 0.0
    logit_softcap: float = 0.0
    """If the file has no others."""
    experts: bool = False
    """Its MLPs may be mixtures of experts."""
