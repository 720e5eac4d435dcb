#!/usr/bin/env python3
"""A GGUF of a real model's shape with random weights: it costs to run what the real one costs.

    scripts/bench/random_gguf.py SHAPE QUANT OUT.gguf [--vocab FROM.gguf]

SHAPE is ``135m``, ``1b`` or ``8b`` (SmolLM2-135M, Llama-3.2-1B, Llama-3.1-8B), ``phi3``,
``qwen3moe`` or ``mixtral`` (Phi-3-mini-4k, Qwen3-30B-A3B, Mixtral 8x7B); QUANT is a tensor
type (``Q8_0``, ``BF16`` …) or ``Q4_K_M``, llama.cpp's mixture of Q4_K and Q6_K. The vocabulary is
copied from a small real model, so the output layer is as wide as that one's.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from load import smollm2

from lhama.plugins import gguf

POOL_BLOCKS = 1 << 15
"""Random blocks made of each type; a tensor is filled with random stretches of them."""
STRETCH = 1021
"""Blocks of a stretch: no row's length, so that no two rows are alike."""
SPREAD = 0.02
"""Standard deviation of the weights."""


@dataclass(frozen=True)
class Shape:
    """A model's dimensions; ``tied``: the output layer is the token embedding."""

    width: int
    layers: int
    heads: int
    kv_heads: int
    hidden: int
    tied: bool
    head: int = 0
    rope_base: float = 500_000.0
    context: int = 131_072
    family: str = "llama"
    experts: int = 0
    """In each layer; ``hidden`` is one's width then."""
    used: int = 0
    """Of them, for a token."""

    @property
    def head_width(self) -> int:
        return self.head or self.width // self.heads


SHAPES = {
    "135m": Shape(576, 30, 9, 3, 1536, tied=True, rope_base=100_000.0, context=8192),
    "1b": Shape(2048, 16, 32, 8, 8192, tied=True),
    "8b": Shape(4096, 32, 32, 8, 14336, tied=False),
    "phi3": Shape(
        3072, 32, 32, 32, 8192, tied=False, rope_base=10_000.0, context=4096, family="phi3"
    ),
    "qwen3moe": Shape(
        2048, 48, 32, 4, 768, tied=False, head=128, rope_base=1e6, context=40_960,
        family="qwen3moe", experts=128, used=8,
    ),
    "mixtral": Shape(
        4096, 32, 32, 8, 14336, tied=False, rope_base=1e6, context=32_768, experts=8, used=2
    ),
}  # fmt: skip


def write(path: Path, shape: Shape, quant: str, vocabulary: Path) -> None:
    """Write the file; large ones are held in memory once."""
    source = gguf.read(vocabulary, vocabulary=True)
    tokenizer = {k: v for k, v in source.metadata.items() if k.startswith("tokenizer.")}
    vocab = len(tokenizer["tokenizer.ggml.tokens"])
    own = {
        "context_length": shape.context,
        "embedding_length": shape.width,
        "block_count": shape.layers,
        "feed_forward_length": shape.hidden,
        "attention.head_count": shape.heads,
        "attention.head_count_kv": shape.kv_heads,
        "attention.key_length": shape.head_width,
        "attention.value_length": shape.head_width,
        "rope.dimension_count": shape.head_width,
        "rope.freq_base": shape.rope_base,
        "attention.layer_norm_rms_epsilon": 1e-5,
        "vocab_size": vocab,
    }
    if shape.experts:
        own |= {
            "expert_count": shape.experts,
            "expert_used_count": shape.used,
            "expert_feed_forward_length": shape.hidden,
        }
    metadata = {
        "general.architecture": shape.family,
        "general.name": "random",  # llama.cpp would expect Phi 3's vocabulary behind that name
        **{f"{shape.family}.{key}": value for key, value in own.items()},
        **tokenizer,
    }
    fill = Filler()
    tensors = {
        name: (dimensions, kind, fill(kind, dimensions))
        for name, dimensions, kind in _tensors(shape, quant, vocab)
    }
    gguf.write(path, metadata, tensors)


def _tensors(shape: Shape, quant: str, vocab: int) -> list[tuple[str, tuple[int, ...], str]]:
    """Name, dimensions in GGUF's order and type of every tensor."""
    mixed = quant == "Q4_K_M"
    base, better = ("Q4_K", "Q6_K") if mixed else (quant, quant)
    kv = shape.kv_heads * shape.head_width
    wide = shape.heads * shape.head_width
    tensors: list[tuple[str, tuple[int, ...], str]] = [
        ("token_embd.weight", (shape.width, vocab), better if shape.tied else base),
        ("output_norm.weight", (shape.width,), "F32"),
    ]
    if not shape.tied:
        tensors.append(("output.weight", (shape.width, vocab), better))
    for n in range(shape.layers):
        refined = better if _refined(n, shape.layers) else base
        block: list[tuple[str, tuple[int, ...], str]] = [
            ("attn_norm", (shape.width,), "F32"),
            ("attn_output", (wide, shape.width), base),
            ("ffn_norm", (shape.width,), "F32"),
        ]
        if shape.family == "phi3":
            block.append(("attn_qkv", (shape.width, wide + 2 * kv), base))
        else:
            block += [
                ("attn_q", (shape.width, wide), base),
                ("attn_k", (shape.width, kv), base),
                ("attn_v", (shape.width, kv), refined),
            ]
        if shape.family == "qwen3moe":
            block += [(f"attn_{part}_norm", (shape.head_width,), "F32") for part in "qk"]
        if shape.experts:
            block.append(("ffn_gate_inp", (shape.width, shape.experts), "F32"))
        every, suffix = ((shape.experts,), "_exps") if shape.experts else ((), "")
        if shape.family == "phi3":
            block.append(("ffn_up", (shape.width, 2 * shape.hidden), base))
        else:
            block += [
                (f"ffn_{part}{suffix}", (shape.width, shape.hidden, *every), base)
                for part in ("gate", "up")
            ]
        block.append((f"ffn_down{suffix}", (shape.hidden, shape.width, *every), refined))
        tensors += [(f"blk.{n}.{name}.weight", size, kind) for name, size, kind in block]
    return tensors


def _refined(layer: int, layers: int) -> bool:
    """Which layers Q4_K_M gives more bits: llama.cpp's ``use_more_bits``."""
    eighth = layers // 8
    return layer < eighth or layer >= 7 * eighth or (layer - eighth) % 3 == 2


class Filler:
    """Random bytes that are valid blocks: fields are random, scales fit the spread wanted."""

    def __init__(self) -> None:
        self._rng = np.random.default_rng(0)
        self._pools: dict[str, bytes] = {}

    def __call__(self, kind: str, dimensions: tuple[int, ...]) -> bytes:
        size = gguf.TENSOR_TYPES[gguf.TENSOR_TYPE_IDS[kind]]
        elements = int(np.prod(dimensions))
        if len(dimensions) == 1:
            return np.ones(elements, np.float32).tobytes()  # a norm
        pool = self._pools.get(kind) or self._pools.setdefault(kind, self._pool(kind))
        blocks = elements // size.block
        starts = self._rng.integers(POOL_BLOCKS - STRETCH, size=blocks // STRETCH + 1)
        pieces = (pool[at * size.size : (at + STRETCH) * size.size] for at in map(int, starts))
        return b"".join(pieces)[: blocks * size.size]

    def _pool(self, kind: str) -> bytes:
        n = POOL_BLOCKS
        half = np.float16

        def random(count: int) -> np.ndarray:
            return self._rng.integers(0, 256, (n, count), np.uint8)

        def scale(value: float) -> np.ndarray:
            return np.full((n, 1), value, half).view(np.uint8)

        q4, q5, q6, q8 = (SPREAD / s for s in (4.61, 9.23, 18.5, 73.9))  # spread of 4 … 8 bits
        six_bits = 31.5  # mean of a 6-bit sub-scale
        columns = {
            "Q4_0": lambda: [scale(q4), random(16)],
            "Q4_1": lambda: [scale(q4), scale(-7.5 * q4), random(16)],
            "Q5_0": lambda: [scale(q5), random(4 + 16)],
            "Q5_1": lambda: [scale(q5), scale(-15.5 * q5), random(4 + 16)],
            "Q8_0": lambda: [scale(q8), random(32)],
            "Q4_K": lambda: [scale(q4 / six_bits), scale(7.5 * q4 / six_bits), random(12 + 128)],
            "Q5_K": lambda: [
                scale(q5 / six_bits),
                scale(15.5 * q5 / six_bits),
                random(12 + 32 + 128),
            ],
            "Q6_K": lambda: [random(128 + 64 + 16), scale(q6 / 73.9)],
            "F32": lambda: [self._normal(np.float32)],
            "F16": lambda: [self._normal(half)],
            "BF16": lambda: [self._normal(np.float32).reshape(n, 1, 4)[:, :, 2:].reshape(n, 2)],
        }
        return np.concatenate(columns[kind](), axis=1).tobytes()

    def _normal(self, kind: type) -> np.ndarray:
        values = self._rng.normal(0, SPREAD, (POOL_BLOCKS, 1)).astype(kind)
        return values.view(np.uint8)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("quant")
    parser.add_argument("out", type=Path)
    parser.add_argument("--vocab", type=Path, default=smollm2())
    a = parser.parse_args()
    write(a.out, SHAPES[a.shape], a.quant, a.vocab)
    print(f"{a.out}: {a.out.stat().st_size / 1e9:.2f} GB")


if __name__ == "__main__":
    main()
