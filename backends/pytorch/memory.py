"""How much memory a model takes under PyTorch: sizes only, nothing is allocated."""

from __future__ import annotations

from typing import Final, Literal

from lhama.backends.pytorch.bert_parameters import BertParameters
from lhama.backends.pytorch.hyperparameters import ENCODERS, Hyperparameters
from lhama.plugins.backend import LoadOptions, MemoryEstimate

Kind = Literal["cpu", "cuda", "metal"]
Parameters = Hyperparameters | BertParameters

LOGIT_COPIES: Final = 6
"""Float arrays of the vocabulary's size that sampling holds for each row at once."""


def element_bytes(shape: Parameters, kind: Kind) -> int:
    """Bytes of a weight and of a cached number. Processors compute in float32, the rest in 16
    bits, but for Gemma on Metal: bfloat16 is slow there and float16 overflows."""
    return 4 if kind == "cpu" or (kind == "metal" and "gemma" in shape.family) else 2


EMBEDDING_TEXTS: Final = 256
"""Texts that one step embeds."""


def embedding_tokens(kind: Kind) -> int:
    """Tokens that one step embeds, unless a text is longer. An accelerator wants many at once; on
    a processor, who comes next waits for a step, and larger ones gain nothing (measured: 64 tokens
    2,076 a CPU second, 128 2,520, 256 3,488, 1024 3,492; all-MiniLM-L6-v2, texts of 20 tokens)."""
    return 256 if kind == "cpu" else 8192


def embedding_room(shape: Parameters, options: LoadOptions, kind: Kind) -> int:
    """Tokens there must be room for at once."""
    return max(embedding_tokens(kind), longest_text(shape, options))


def longest_text(shape: Parameters, options: LoadOptions) -> int:
    """Most tokens of an embedded text, as llama.cpp has it: a batch, unless the last token of
    a decoder tells all."""
    if shape.family not in ENCODERS and shape.pooling in (3, 4):
        return max(1, options.context)
    return max(1, min(options.batch, options.context))


def slots(options: LoadOptions) -> int:
    return max(1, options.slots)


def batch_tokens(options: LoadOptions) -> int:
    """Most tokens in one step."""
    return max(1, min(options.batch, slots(options) * options.context))


def estimate(shape: Parameters, options: LoadOptions, kind: Kind) -> MemoryEstimate:
    """Bytes on the device, and while loading the float32 copy of the largest tensor on the host."""
    element = element_bytes(shape, kind)
    weights = shape.elements * element
    loading = 2 * 4 * shape.largest if kind != "cpu" else 4 * shape.largest
    if options.embedding or shape.family in ENCODERS:
        step, longest = embedding_room(shape, options, kind), longest_text(shape, options)
        kv = 0
        if isinstance(shape, Hyperparameters) and shape.family not in ENCODERS:
            kv = 2 * shape.layers * step * shape.kv_heads * shape.head_dim * element
        compute = step * 4 * (12 * shape.width + 4 * shape.hidden)
        compute += min(longest, embedding_tokens(kind)) * longest * shape.heads * 4  # its scores
        on_device = 0 if kind == "cpu" else weights + kv + compute
        return MemoryEstimate(weights, kv, compute + loading, on_device)
    assert isinstance(shape, Hyperparameters)
    cells = slots(options) * options.context
    kv = 2 * shape.layers * cells * shape.kv_heads * shape.head_dim * element
    batch = batch_tokens(options)
    activations = batch * 4 * (6 * shape.width + 4 * shape.hidden)
    # One row's scores at a time: the longest chunk against the whole context.
    scores = batch * options.context * shape.heads * 4
    logits = LOGIT_COPIES * slots(options) * shape.vocab * 4
    compute = activations + scores + logits
    on_device = 0 if kind == "cpu" else weights + kv + compute
    return MemoryEstimate(weights, kv, compute + loading, on_device)
