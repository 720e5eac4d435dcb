"""What the blocks of a family have beyond the plain ones: norms, activation, scales."""

from __future__ import annotations

from dataclasses import dataclass

from lhama.backends.pytorch.hyperparameters import Hyperparameters

_LAYERS_OF_GEMMA3_27B = 62


@dataclass(frozen=True, slots=True)
class Traits:
    """Plain are: a norm before each half of a block, SwiGLU, attention over everything."""

    neighbours: bool = False
    """The file's queries and keys turn dimension 2i with 2i+1, not i with i + head_dim/2."""
    gelu: bool = False
    post_norms: bool = False
    """What each half of a block gives is normed before it is added."""
    head_norms: bool = False
    """Queries and keys are normed, head by head."""
    embedding_scale: float = 1.0
    attention_scale: float = 0.0
    """What products of queries and keys are multiplied with."""
    attention_softcap: float = 0.0


def traits_of(shape: Hyperparameters) -> Traits:
    plain = shape.head_dim**-0.5
    if shape.family == "gemma3":
        large = shape.layers == _LAYERS_OF_GEMMA3_27B
        divisor = shape.width // shape.heads if large else shape.head_dim
        return Traits(
            gelu=True,
            post_norms=True,
            head_norms=True,
            embedding_scale=shape.width**0.5,
            attention_scale=divisor**-0.5,
        )
    return Traits(
        neighbours=shape.family == "llama",
        head_norms=shape.family == "qwen3",
        attention_scale=plain,
    )
