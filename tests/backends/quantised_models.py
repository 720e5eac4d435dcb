"""Tiny models whose matrices are random blocks of any type."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pytorch_models import VOCAB, vocabulary

from lhama.plugins.gguf import TENSOR_TYPE_IDS, TENSOR_TYPES, write

WIDTH, HIDDEN, HEADS, KV_HEADS, HEAD_DIM = 256, 256, 4, 2, 64
SPREADS = {
    "Q4_0": 4.61,
    "Q4_1": 4.61,
    "Q5_0": 9.23,
    "Q5_1": 9.23,
    "Q8_0": 73.9,
    "Q4_K": 4.61 * 31.5,
    "Q5_K": 9.23 * 31.5,
    "Q6_K": 18.5 * 73.9,
}
"""Standard deviation of a type's weights when its scale is one."""
MINIMUMS = {"Q4_1": -7.5, "Q5_1": -15.5, "Q4_K": 7.5, "Q5_K": 15.5}
"""What the second scale is in terms of the first, so that weights are around zero."""


def blocks(
    numbers: np.random.Generator, kind: str, rows: int, columns: int, spread: float
) -> np.ndarray:
    """uint8 [rows, bytes]: random weights of a standard deviation of about ``spread``."""
    if kind not in SPREADS:
        values = numbers.normal(0, spread, (rows, columns)).astype(np.float32)
        if kind == "BF16":
            return torch.from_numpy(values).bfloat16().view(torch.uint8).numpy()
        return values.astype(np.float16 if kind == "F16" else np.float32).view(np.uint8)
    size = TENSOR_TYPES[TENSOR_TYPE_IDS[kind]]
    count = rows * columns // size.block
    made = numbers.integers(0, 256, (count, size.size), dtype=np.uint8)
    scale = spread / SPREADS[kind]

    def half(at: int, value: float) -> None:
        values = value * numbers.uniform(0.7, 1.3, (count, 1))
        made[:, at : at + 2] = values.astype(np.float16).view(np.uint8)

    half(208 if kind == "Q6_K" else 0, scale)
    if kind in MINIMUMS:
        half(2, MINIMUMS[kind] * scale)
    return made.reshape(rows, -1)


def quantised(
    path: Path,
    family: str,
    types: Mapping[str, str],
    layers: int = 2,
    metadata: Mapping[str, Any] | None = None,
) -> Path:
    """Write a model; ``types`` by the part of a tensor's name, ``""`` for all others. Keys of
    ``metadata`` are the architecture's."""
    numbers = np.random.default_rng(0)
    own = {
        "block_count": layers,
        "context_length": 2048,
        "embedding_length": WIDTH,
        "feed_forward_length": HIDDEN,
        "attention.head_count": HEADS,
        "attention.head_count_kv": KV_HEADS,
        "attention.key_length": HEAD_DIM,
        "attention.value_length": HEAD_DIM,
        "attention.layer_norm_rms_epsilon": 1e-5,
        **({"attention.sliding_window": 16} if "gemma" in family else {}),
        **(metadata or {}),
    }
    queries, keys = HEADS * HEAD_DIM, KV_HEADS * HEAD_DIM
    experts = own.get("expert_count", 0)
    matrices: dict[str, tuple[int, ...]] = {"attn_output": (queries, WIDTH)}
    if family == "phi3":
        matrices["attn_qkv"] = (WIDTH, queries + 2 * keys)
    else:
        matrices |= {"attn_q": (WIDTH, queries), "attn_k": (WIDTH, keys), "attn_v": (WIDTH, keys)}
    if experts:
        hidden = own["expert_feed_forward_length"]
        matrices["ffn_gate_inp"] = (WIDTH, experts)
        matrices |= {f"ffn_{name}_exps": (WIDTH, hidden, experts) for name in ("gate", "up")}
        matrices["ffn_down_exps"] = (hidden, WIDTH, experts)
    elif family == "phi3":
        matrices |= {"ffn_up": (WIDTH, 2 * HIDDEN), "ffn_down": (HIDDEN, WIDTH)}
    else:
        matrices |= {"ffn_gate": (WIDTH, HIDDEN), "ffn_up": (WIDTH, HIDDEN)}
        matrices["ffn_down"] = (HIDDEN, WIDTH)
    vectors = {"attn_norm": WIDTH, "ffn_norm": WIDTH}
    if "gemma" in family:
        vectors |= {"post_attention_norm": WIDTH, "post_ffw_norm": WIDTH}
    if family in ("gemma3", "qwen3", "qwen3moe"):
        vectors |= {"attn_q_norm": HEAD_DIM, "attn_k_norm": HEAD_DIM}
    if family == "qwen2":
        vectors |= {"attn_q": queries, "attn_k": keys, "attn_v": keys}
    tensors: dict[str, tuple[tuple[int, ...], str, bytes]] = {}

    def matrix(name: str, shape: tuple[int, ...], spread: float) -> None:
        kind = next((k for part, k in types.items() if part and part in name), types[""])
        data = blocks(numbers, kind, math.prod(shape[1:]), shape[0], spread).tobytes()
        tensors[name] = (shape, kind, data)

    def vector(name: str, size: int) -> None:
        data = numbers.uniform(0.5, 1.5, size).astype(np.float32).tobytes()
        tensors[name] = ((size,), "F32", data)

    matrix("token_embd.weight", (WIDTH, VOCAB), 0.3)
    vector("output_norm.weight", WIDTH)
    if family == "phi3":
        for kind in ("long", "short"):
            vector(f"rope_factors_{kind}.weight", own["rope.dimension_count"] // 2)
    if "output.weight" in types:
        matrix("output.weight", (WIDTH, VOCAB), 1.2 / WIDTH**0.5)
    for layer in range(layers):
        for name, shape in matrices.items():
            matrix(f"blk.{layer}.{name}.weight", shape, 1.2 / shape[0] ** 0.5)
        for name, size in vectors.items():
            kind = "bias" if name in matrices else "weight"
            vector(f"blk.{layer}.{name}.{kind}", size)
    keys_of_family = {f"{family}.{key}": value for key, value in own.items()}
    write(path, {"general.architecture": family, **keys_of_family, **vocabulary()}, tensors)
    return path
