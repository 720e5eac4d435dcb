"""Gemma 2 and 3, text only: norms on both sides of each half, GeGLU, layers that see a window.

The files hold the norms' weights with their +1 folded in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from lhama.backends.pytorch.families.family import Family, Traits

if TYPE_CHECKING:
    from lhama.backends.pytorch.hyperparameters import Hyperparameters

LAYERS_OF_27B: Final = {"gemma2": 46, "gemma3": 62}
"""Models that divide by the root of width / heads instead of a head's size."""


def _gemma2(shape: Hyperparameters) -> Traits:
    return Traits(
        gelu=True,
        post_norms=True,
        embedding_scale=shape.width**0.5,
        attention_scale=_attention_scale(shape),
        attention_softcap=shape.attention_softcap,
    )


def _gemma3(shape: Hyperparameters) -> Traits:
    return Traits(
        gelu=True,
        post_norms=True,
        head_norms=True,
        embedding_scale=shape.width**0.5,
        attention_scale=_attention_scale(shape),
    )


def _attention_scale(shape: Hyperparameters) -> float:
    large = shape.layers == LAYERS_OF_27B.get(shape.family)
    divisor = shape.width // shape.heads if large else shape.head_dim
    return float(divisor**-0.5)


GEMMA2 = Family("gemma2", _gemma2, window_period=2, attention_softcap=50.0, logit_softcap=30.0)
GEMMA3 = Family("gemma3", _gemma3, window_period=6, window_rope_base=10000.0)
GEMMA_EMBEDDING = Family("gemma-embedding", _gemma3, window_period=6, window_rope_base=10000.0)
