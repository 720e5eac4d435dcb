"""What the card's kernels can run and what it takes: sizes and names, no torch."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import Final

from lhama.backends.pytorch import memory
from lhama.backends.pytorch.families import traits_of
from lhama.backends.pytorch.hyperparameters import ENCODERS, Hyperparameters
from lhama.plugins.backend import LoadOptions, MemoryEstimate, Support
from lhama.plugins.gguf import GGUF, Tensor

BITS: Final = {
    "Q4_0": 4.5,
    "Q4_1": 5.0,
    "Q5_0": 5.5,
    "Q5_1": 6.0,
    "Q8_0": 8.5,
    "Q4_K": 4.625,
    "Q5_K": 5.625,
    "Q6_K": 6.5625,
    "F16": 16.0,
    "BF16": 16.0,
    "F32": 32.0,
}
"""Bits a weight takes on the card, by the file's type."""

KV_TYPES: Final = ("f16", "q8_0")
MOST_EXPERTS: Final = 1024
"""Of a layer: one warp looks for the best."""
MOST_USED: Final = 32
"""Of them, for a token: kernels are written out for each."""
OLDEST: Final = (8, 0)
"""Compute capability: tensor cores that take what the kernels give them."""
SMALL: Final = ((8, 6), (8, 9), (12, 0), (12, 1))
"""Compute capabilities whose programs have 99 kB of shared memory, where others have 163 or 227."""
MEASURED: Final = (9, 0)
"""The card these kernels were tuned and measured on."""
BATCH: Final = 2048
"""Tokens of a step, if no more are asked for: fewer would not keep the tensor cores busy."""
LARGEST: Final = 1 << 14
"""However many are asked for: a step's numbers are counted in 32 bits."""
CONTEXT_BYTES: Final = 600 << 20
"""Of CUDA itself and its libraries."""
STAGING: Final = 128 << 20
"""Host memory that weights pass through."""
BIASES: Final = frozenset(("ffn_gate", "ffn_up", "ffn_down", "ffn_gate_inp", "output"))
"""What may have a bias that no kernel adds."""


def judge(
    header: GGUF,
    shape: memory.Parameters,
    capability: tuple[int, int],
    adapters: Sequence[str] = (),
) -> Support:
    """The rule by which cards get this backend or llama.cpp (80).

    Where these kernels were measured they were ahead for one stream, for prompts, and with many
    streams on small models (docs/performance.md); on other cards, and with what no card has run
    yet, nobody knows.
    """
    why = refusal(header, shape, LoadOptions(), capability, adapters)
    if why:
        return Support(60, f"plain PyTorch on the card, without kernels of its own: {why}")
    if untried := _untried(shape):
        return Support(75, f"kernels of its own, not run on a card yet for {untried}")
    if capability == MEASURED:
        return Support(90, "measured ahead of llama.cpp on such a card, but for many rows of 8B")
    return Support(75, "kernels of its own, not measured on such a card")


def _untried(shape: memory.Parameters) -> str:
    """What of a model the kernels compute right on a processor, and no card has shown."""
    assert isinstance(shape, Hyperparameters)
    if shape.experts:
        return "mixtures of experts"
    if traits_of(shape).fused:
        return "fused matrices"
    if shape.rotated != shape.head_dim:
        return "heads that turn in part"
    return ""


def refusal(
    header: GGUF,
    shape: memory.Parameters,
    options: LoadOptions,
    capability: tuple[int, int],
    adapters: Sequence[str] = (),
) -> str:
    """Why the kernels cannot run a model; empty if they can."""
    if capability < OLDEST:
        return "the card's compute capability {}.{} is below {}.{}".format(*capability, *OLDEST)
    if adapters:
        return "adapters are not applied by them"
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed"
    if options.embedding or not isinstance(shape, Hyperparameters) or shape.family in ENCODERS:
        return "it does not generate"
    if options.kv_type not in KV_TYPES:
        return f"no kernel reads a cache of type {options.kv_type}"
    for tensor in header.tensors.values():
        if len(tensor.shape) >= 2 and (why := _refused(tensor)):
            return f"{tensor.name}: {why}"
        if tensor.name.endswith(".bias") and tensor.name.split(".")[-2] in BIASES:
            return f"no kernel adds {tensor.name}"
    if shape.experts > MOST_EXPERTS or shape.experts_used > MOST_USED:
        return f"{shape.experts_used} of {shape.experts} experts for a token"
    if LARGEST * shape.experts_used * shape.inner > 1 << 31:
        return f"experts of {shape.inner} dimensions, {shape.experts_used} for a token"
    if shape.head_dim % 32 or shape.head_dim > 256:
        return f"heads of {shape.head_dim} dimensions"
    if shape.inner % 32 or shape.width % 32:
        return "widths that do not divide by 32"
    return _mixed_types(header, shape)


def _refused(tensor: Tensor) -> str:
    if tensor.type_name not in BITS:
        return f"no kernel reads {tensor.type_name}"
    multiple = 256 if tensor.type_name.endswith("_K") else 32
    if tensor.shape[0] % multiple:
        return f"rows of {tensor.shape[0]} weights do not divide by {multiple}"
    if tensor.elements > 1 << 31:
        return "more weights than the kernels count"
    return ""


def _mixed_types(header: GGUF, shape: Hyperparameters) -> str:
    """Matrices that one kernel multiplies must be of the same type."""

    def types(layer: int, *names: str) -> list[str]:
        tensors = (header.tensors.get(f"blk.{layer}.{name}.weight") for name in names)
        return [tensor.type_name for tensor in tensors if tensor is not None]

    for layer in range(shape.layers):
        for pair in (("ffn_gate", "ffn_up"), ("ffn_gate_exps", "ffn_up_exps")):
            if len(set(types(layer, *pair))) > 1:
                return f"blk.{layer}: gate and up of different types"
        three = types(layer, "attn_q", "attn_k", "attn_v")
        if len(three) == 3 and three[1] not in (three[0], three[2]):
            return f"blk.{layer}: queries, keys and values of three types"
    return ""


def batch_tokens(options: LoadOptions) -> int:
    """Most tokens in one step."""
    most = min(LARGEST, memory.slots(options) * options.context)
    return max(1, min(max(options.batch, BATCH), most))


def estimate(header: GGUF, shape: Hyperparameters, options: LoadOptions) -> MemoryEstimate:
    """Bytes on the card, and on the host what weights pass through."""
    weights = int(
        sum(t.elements * BITS.get(t.type_name, 32.0) / 8 for t in header.tensors.values())
    )
    numbers = 2 * shape.layers * shape.kv_heads * shape.head_dim
    line = numbers * 34 // 32 if options.kv_type == "q8_0" else numbers * 2
    pages = memory.slots(options) * (-(-options.context // 64)) + 1
    kv = pages * 64 * line
    batch = batch_tokens(options)
    queries = shape.heads * shape.head_dim
    # Residual, activations and products of a step, the MLP's three times, of each expert a token
    # sees, and what these say; an expert's list may have all tokens.
    used = max(1, shape.experts_used)
    activations = batch * (12 * shape.width + 4 * 3 * queries + 2 * 4 * used * shape.inner)
    activations += batch * 4 * ((used - 1) * shape.width + shape.experts)
    # A matrix in float16, twice; that of all a layer's experts once.
    widest = 2 * max(shape.inner, queries)
    written_out = 2 * shape.width * max(widest, shape.experts * shape.inner)
    tables = 4 * options.context * shape.head_dim * 2
    logits = memory.LOGIT_COPIES * memory.slots(options) * shape.vocab * 4
    compute = activations + written_out + tables + logits + CONTEXT_BYTES
    return MemoryEstimate(weights, kv, compute + STAGING, weights + kv + compute)
