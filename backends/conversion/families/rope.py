"""Rotary embeddings: their base and how a longer context is reached, by ``config.json``."""

from __future__ import annotations

import math

import numpy as np
from gguf import GGUFWriter
from gguf.constants import RopeScalingType

from lhama.backends.conversion.config import Config
from lhama.backends.conversion.families.family import Values
from lhama.plugins.backend import UnsupportedModel


def parameters(config: Config) -> Config:
    """Of the full attention: ``rope_parameters`` today, ``rope_scaling`` and ``rope_theta`` before."""
    found = config.section("rope_parameters")
    found = found.section("full_attention").over(found)
    return found.over(config.section("rope_scaling"))


def base(config: Config, default: float) -> float:
    """``rope_theta``, wherever it stands."""
    return parameters(config).over(config).number("rope_theta", default=default)


def local_base(config: Config, default: float) -> float:
    """The base of the layers with a sliding window."""
    sliding = config.section("rope_parameters").section("sliding_attention")
    if "rope_theta" in sliding:
        return sliding.number("rope_theta")
    return config.number("rope_local_base_freq", default=default)


def describe(config: Config, writer: GGUFWriter) -> None:
    """Write the scaling. Raises ``UnsupportedModel`` for a kind that GGUF has no word for."""
    scaling = parameters(config)
    match kind := _kind(scaling):
        case "default" | "llama3":  # llama3's factors are a tensor
            return
        case "linear":
            writer.add_rope_scaling_type(RopeScalingType.LINEAR)
            writer.add_rope_scaling_factor(scaling.number("factor"))
        case "yarn":
            _describe_yarn(scaling, writer)
        case _:
            raise UnsupportedModel(f"rope scaling of the type {kind} is not supported")


def _describe_yarn(scaling: Config, writer: GGUFWriter) -> None:
    writer.add_rope_scaling_type(RopeScalingType.YARN)
    writer.add_rope_scaling_factor(scaling.number("factor"))
    writer.add_rope_scaling_orig_ctx_len(scaling.count("original_max_position_embeddings"))
    optional = {
        "extrapolation_factor": writer.add_rope_scaling_yarn_ext_factor,
        "attention_factor": writer.add_rope_scaling_yarn_attn_factor,
        "beta_fast": writer.add_rope_scaling_yarn_beta_fast,
        "beta_slow": writer.add_rope_scaling_yarn_beta_slow,
    }
    for key, write in optional.items():
        if key in scaling:
            write(scaling.number(key))


def _kind(scaling: Config) -> str:
    return scaling.text("rope_type", "type", default="default")


def llama3_factors(config: Config, dimensions: int, theta: float) -> Values | None:
    """What each frequency is divided by, float32 [dimensions / 2], for Llama 3.1's scaling.

    Long waves are stretched by ``factor``, short ones not at all, those between in proportion.
    """
    scaling = parameters(config)
    if _kind(scaling) != "llama3":
        return None
    factor = scaling.number("factor", default=8.0)
    low = scaling.number("low_freq_factor", default=1.0)
    high = scaling.number("high_freq_factor", default=4.0)
    original = scaling.count("original_max_position_embeddings", default=8192)
    if min(factor, low) <= 0 or high <= low:
        raise UnsupportedModel("the factors of rope_scaling are impossible")
    wavelengths = 2 * math.pi * theta ** (np.arange(0, dimensions, 2) / dimensions)
    smooth = ((original / wavelengths - low) / (high - low)).clip(0.0, 1.0)
    factors: Values = (1 / ((1 - smooth) / factor + smooth)).astype(np.float32)
    return factors
