"""The families of models that generate: one short description each, ``decoder.py`` builds them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from lhama.backends.pytorch.families.family import Family, Traits
from lhama.backends.pytorch.families.gemma import GEMMA2, GEMMA3, GEMMA_EMBEDDING
from lhama.backends.pytorch.families.llama import LLAMA
from lhama.backends.pytorch.families.phi import PHI3
from lhama.backends.pytorch.families.qwen import QWEN2, QWEN3, QWEN3MOE

if TYPE_CHECKING:
    from lhama.backends.pytorch.hyperparameters import Hyperparameters

FAMILIES: Final[dict[str, Family]] = {
    family.name: family
    for family in (LLAMA, QWEN2, QWEN3, QWEN3MOE, GEMMA2, GEMMA3, GEMMA_EMBEDDING, PHI3)
}
"""By ``general.architecture``."""


def traits_of(shape: Hyperparameters) -> Traits:
    """What the blocks of a model have beyond the plain ones."""
    traits = FAMILIES[shape.family].traits(shape)
    return replace(traits, attention_scale=traits.attention_scale or shape.head_dim**-0.5)
