"""Tiny models with random float32 weights, whole enough for llama.cpp to load."""

from __future__ import annotations

import math
import random
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lhama.plugins.gguf import write

WIDTH, HIDDEN, HEADS, KV_HEADS, HEAD_DIM = 64, 96, 4, 2, 32
EXPERTS, EXPERTS_USED = 6, 2
LETTERS = [f"<0x{byte:02X}>" for byte in range(256)]
WORDS = [
    "<unk>",
    "<s>",
    "</s>",
    *LETTERS,
    *["▁", "e", "t", "a", "o", "n", "i", "s", "r", "h"],
    "▁t",
    "he",
    "▁the",
]
TYPES = [2, 3, 3, *[6] * 256, *[1] * 13]
VOCAB = len(WORDS)


def vocabulary() -> dict[str, Any]:
    """A SentencePiece vocabulary of bytes and a few words."""
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": WORDS,
        "tokenizer.ggml.token_type": TYPES,
        "tokenizer.ggml.scores": [-float(token) for token in range(VOCAB)],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
    }


def tiny(
    path: Path,
    family: str,
    *,
    layers: int = 7,
    metadata: Mapping[str, Any] | None = None,
    extra: Mapping[str, tuple[int, ...]] | None = None,
    seed: int = 1,
) -> Path:
    """Write a model of ``family``; ``extra`` tensors in GGUF's order of dimensions.

    ``metadata`` keys without a dot-prefix of their own are the architecture's.
    """
    own = {
        "block_count": layers,
        "context_length": 512,
        "embedding_length": WIDTH,
        "feed_forward_length": HIDDEN,
        "attention.head_count": heads(family),
        "attention.head_count_kv": KV_HEADS,
        "attention.key_length": HEAD_DIM,
        "attention.value_length": HEAD_DIM,
        "attention.layer_norm_rms_epsilon": 1e-5,
        **({"attention.sliding_window": 16} if "gemma" in family else {}),
        **(metadata or {}),
    }
    if mixed := "expert_count" in own:
        own["expert_feed_forward_length"] = HIDDEN
    keys = {"general.architecture": family, **{f"{family}.{k}": v for k, v in own.items()}}
    shapes: dict[str, tuple[int, ...]] = {
        "token_embd.weight": (WIDTH, VOCAB),
        "output_norm.weight": (WIDTH,),
    }
    for layer in range(layers):
        shapes |= {
            f"blk.{layer}.{name}.weight": shape for name, shape in _block(family, mixed).items()
        }
    shapes |= extra or {}
    numbers = random.Random(seed)
    tensors = {
        name: (shape, "F32", _numbers(numbers, name, shape)) for name, shape in shapes.items()
    }
    write(path, {**keys, **vocabulary()}, tensors)
    return path


def heads(family: str) -> int:
    """Qwen 2's and Phi's heads share the width among them."""
    return WIDTH // HEAD_DIM if family in ("qwen2", "phi3") else HEADS


def _block(family: str, mixed: bool) -> dict[str, tuple[int, ...]]:
    queries, keys = heads(family) * HEAD_DIM, KV_HEADS * HEAD_DIM
    fused = family == "phi3"
    block: dict[str, tuple[int, ...]] = {"attn_norm": (WIDTH,)}
    if fused:
        block["attn_qkv"] = (WIDTH, queries + 2 * keys)
    else:
        block |= {"attn_q": (WIDTH, queries), "attn_k": (WIDTH, keys), "attn_v": (WIDTH, keys)}
    block |= {"attn_output": (queries, WIDTH), "ffn_norm": (WIDTH,)}
    if fused:
        block |= {"ffn_up": (WIDTH, 2 * HIDDEN), "ffn_down": (HIDDEN, WIDTH)}
    elif mixed:
        block |= {
            "ffn_gate_inp": (WIDTH, EXPERTS),
            "ffn_gate_exps": (WIDTH, HIDDEN, EXPERTS),
            "ffn_up_exps": (WIDTH, HIDDEN, EXPERTS),
            "ffn_down_exps": (HIDDEN, WIDTH, EXPERTS),
        }
    else:
        block |= {
            "ffn_gate": (WIDTH, HIDDEN),
            "ffn_up": (WIDTH, HIDDEN),
            "ffn_down": (HIDDEN, WIDTH),
        }
    if family.startswith("qwen3") or family in ("gemma3", "gemma-embedding"):
        block |= {"attn_q_norm": (HEAD_DIM,), "attn_k_norm": (HEAD_DIM,)}
    if "gemma" in family:
        block |= {"post_attention_norm": (WIDTH,), "post_ffw_norm": (WIDTH,)}
    return block


def _numbers(numbers: random.Random, name: str, shape: tuple[int, ...]) -> bytes:
    count = math.prod(shape)
    if "norm" in name or "rope_f" in name:
        values = [numbers.uniform(0.5, 2.0) for _ in range(count)]
    else:
        spread = 1.5 / shape[0] ** 0.5 if len(shape) > 1 else 0.3
        values = [numbers.gauss(0, spread) for _ in range(count)]
    return struct.pack(f"<{count}f", *values)
