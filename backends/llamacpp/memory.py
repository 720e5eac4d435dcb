"""How much memory a model takes, and how much of it fits on an accelerator: headers only."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from lhama.backends.llamacpp import leveling
from lhama.backends.llamacpp.architectures import CACHELESS
from lhama.plugins.backend import BackendError, LoadOptions, MemoryEstimate
from lhama.plugins.gguf import GGUF

KV_BYTES: Final[dict[str, float]] = {
    "f32": 4.0,
    "f16": 2.0,
    "bf16": 2.0,
    "q8_0": 34 / 32,
    "q5_1": 24 / 32,
    "q5_0": 22 / 32,
    "q4_1": 20 / 32,
    "q4_0": 18 / 32,
}
"""Bytes for each element of the KV cache, by ``LoadOptions.kv_type``."""

CPU_UBATCH: Final = 63
"""Most tokens the processor computes at once. From 64 on, ggml takes another attention kernel whose
sums round differently, and a sequence's tokens would depend on who shares its batch. Prefill is
no slower: measured 286 tok/s at 512, 298 at 63 (SmolLM2, two cores)."""

EMBEDDING_TEXTS: Final = 64
"""Texts that one step embeds."""

EMBEDDING_TOKENS: Final = 512
"""Tokens that one step may embed, unless a text is longer: each has a row of logits in memory."""

EMBEDDING_STEP: Final = 256
"""Tokens that one step on the processor embeds, unless a text is longer. The texts of a step are one
attention matrix, computed whole and masked, and who comes next waits for a step: from here on,
larger ones gain nothing (measured: 64 tokens 1,620 a CPU second, 128 2,231, 256 2,414, 512 2,400;
all-MiniLM-L6-v2, texts of 20 tokens)."""

_LAST: Final = 3
_RANK: Final = 4


HALVES_FROM: Final = 8
"""Slots from which two contexts with half of them each are tried: with fewer there is too little
to do for the host while the other half computes."""


def halves(options: LoadOptions) -> bool:
    """Whether two contexts may be made."""
    return options.slots >= HALVES_FROM and options.slots % 2 == 0


def context_tokens(header: GGUF, options: LoadOptions) -> int:
    """Cells of the KV cache all sequences share; 0 for a model without one."""
    if not options.embedding:
        return max(1, options.slots) * max(1, options.context)
    if header.architecture in CACHELESS:
        return 0
    return max(longest_text(header, options), batch_tokens(header, options))


def longest_text(header: GGUF, options: LoadOptions) -> int:
    """Most tokens of an embedded text: it must fit into a batch, unless the last token tells all."""
    if in_pieces(header):
        return max(1, options.context)
    return max(1, min(options.batch, options.context))


def in_pieces(header: GGUF) -> bool:
    """Whether a text may be computed piece by piece: what its last token sees lies in the cache."""
    causal = header.get_bool(header.key("attention.causal"), True)
    pooling = header.get_int(header.key("pooling_type"))
    return causal and header.architecture not in CACHELESS and pooling in (_LAST, _RANK)


def batch_tokens(header: GGUF, options: LoadOptions) -> int:
    """Most tokens in one step; of an embedding model, computed at once."""
    if not options.embedding:
        return min(options.batch, context_tokens(header, options))
    if in_pieces(header):
        return EMBEDDING_TOKENS
    return max(EMBEDDING_TOKENS, longest_text(header, options))


def batch_room(header: GGUF, options: LoadOptions, offloaded: bool) -> int:
    """Tokens that a batch has room for: those of a step, and its fillers."""
    fills = offloaded and not options.embedding
    return batch_tokens(header, options) + (leveling.MOST if fills else 0)


def embedding_step(header: GGUF, options: LoadOptions, offloaded: bool) -> int:
    """Tokens of a step of several texts."""
    most = batch_tokens(header, options)
    return most if offloaded else min(most, EMBEDDING_STEP)


def ubatch_tokens(header: GGUF, options: LoadOptions, offloaded: bool) -> int:
    """Most tokens computed at once; a step with more is cut by llama.cpp."""
    most = batch_room(header, options, offloaded)
    return most if offloaded or options.embedding else min(most, CPU_UBATCH)


def flash_attention(options: LoadOptions, offloaded: bool) -> bool | None:
    """Whether to use the fused attention kernel; ``None`` leaves it to llama.cpp.

    Off on the processor unless asked for or needed by a quantised cache: for a lone token it splits
    the cache among threads, a batch's tokens it does not, and the two round differently.
    """
    if options.flash_attention is not None or offloaded or options.embedding:
        return options.flash_attention
    return False if options.kv_type in ("f32", "f16", "bf16") else None


def estimate(
    header: GGUF,
    options: LoadOptions,
    device_free: int | None = None,
    projectors: Sequence[str] = (),
) -> MemoryEstimate:
    """Bytes of weights, KV cache and compute buffers.

    ``device_free`` is the accelerator memory there is; ``None`` if the library has no accelerator.
    """
    weights = sum(tensor.nbytes for tensor in header.tensors.values()) + file_bytes(projectors)
    kv = sum(kv_layers(header, options))
    layers = 0 if device_free is None else gpu_layers(header, options, device_free)
    compute = compute_bytes(header, options, offloaded=layers > 0)
    return MemoryEstimate(weights, kv, compute, device_bytes(header, options, layers))


def file_bytes(paths: Sequence[str]) -> int:
    """What files take that are loaded whole: projectors."""
    return sum(os.stat(path).st_size for path in paths)


def kv_layers(header: GGUF, options: LoadOptions) -> list[int]:
    """Bytes of the KV cache, layer by layer. Recurrent layers count as none: theirs is small."""
    blocks = header.get_int(header.key("block_count"))
    cells = context_tokens(header, options)
    try:
        element = KV_BYTES[options.kv_type]
    except KeyError:
        names = ", ".join(KV_BYTES)
        raise BackendError(f"unknown KV cache type {options.kv_type!r}: one of {names}") from None
    heads = _per_layer(header, "attention.head_count", blocks, 0)
    kv_heads = _per_layer(header, "attention.head_count_kv", blocks, None) or heads
    width = header.get_int(header.key("embedding_length"))
    sizes: list[int] = []
    for layer in range(blocks):
        head = width // heads[layer] if heads[layer] else 0
        key = header.get_int(header.key("attention.key_length"), head)
        value = header.get_int(header.key("attention.value_length"), head)
        sizes.append(int(cells * kv_heads[layer] * (key + value) * element))
    return sizes


def compute_bytes(header: GGUF, options: LoadOptions, offloaded: bool) -> int:
    """What contexts take beside the cache: of two, if there may be two."""
    if offloaded and not options.embedding and halves(options):
        half = replace(options, slots=options.slots // 2)
        return 2 * _context_bytes(header, half, offloaded)
    return _context_bytes(header, options, offloaded)


def _context_bytes(header: GGUF, options: LoadOptions, offloaded: bool) -> int:
    """The rule of thumb for activations: what llama.cpp reserves, seen over several models."""
    batch = ubatch_tokens(header, options, offloaded)
    blocks = header.get_int(header.key("block_count"))
    width = header.get_int(header.key("embedding_length"))
    hidden = max(_per_layer(header, "feed_forward_length", blocks, 0), default=0)
    heads = max(_per_layer(header, "attention.head_count", blocks, 0), default=0)
    vocab = header.array_length("tokenizer.ggml.tokens")
    # The scores of every head, or the f16 mask alone.
    scores = 4 * heads if flash_attention(options, offloaded) is False else 2
    outputs = batch if options.embedding else options.slots
    seen = context_tokens(header, options) or batch
    activations = batch * (scores * seen + 4 * (2 * hidden + 6 * width))
    return activations + outputs * (2 * vocab + width) * 4


def gpu_layers(header: GGUF, options: LoadOptions, free: int) -> int:
    """Layers that fit into ``free`` bytes of accelerator memory, the output layer counted first."""
    blocks = header.get_int(header.key("block_count"))
    if options.gpu_layers >= 0:
        return min(options.gpu_layers, blocks + 1)
    left = free - options.gpu_overhead_bytes - compute_bytes(header, options, offloaded=True)
    count = 0
    for size in _offload_order(header, options):
        left -= size
        if left < 0:
            break
        count += 1
    return count


def device_bytes(header: GGUF, options: LoadOptions, layers: int) -> int:
    """What ``layers`` offloaded layers take on the accelerator."""
    if layers == 0:
        return 0
    return sum(_offload_order(header, options)[:layers]) + compute_bytes(header, options, True)


def _offload_order(header: GGUF, options: LoadOptions) -> list[int]:
    """Bytes of the output layer and then of the blocks, last first: llama.cpp's order."""
    blocks = kv_layers(header, options)
    output = 0
    for name, tensor in header.tensors.items():
        head, _, rest = name.partition(".")
        number = rest.partition(".")[0]
        if head == "blk" and number.isdigit() and int(number) < len(blocks):
            blocks[int(number)] += tensor.nbytes
        elif head != "token_embd" or "output.weight" not in header.tensors:
            output += tensor.nbytes
    return [output, *reversed(blocks)]


def _per_layer(header: GGUF, name: str, blocks: int, default: int | None) -> list[int]:
    """A number for each layer, whether the file gives one for all or a list; [] if it has none."""
    key = header.key(name)
    values = header.get_list(key)
    if len(values) >= blocks and values:
        return [int(value) for value in values[:blocks]]
    if key not in header.metadata and default is None:
        return []
    return [header.get_int(key, default or 0)] * blocks
