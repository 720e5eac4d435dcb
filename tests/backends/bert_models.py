"""Tiny BERTs with random float32 weights and a small WordPiece vocabulary."""

from __future__ import annotations

import random
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lhama.plugins.gguf import write

WIDTH, HIDDEN, HEADS, LAYERS, CONTEXT = 64, 96, 4, 3, 128
WORDS = [
    *["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"],
    *[f"▁{letter}" for letter in "abcdefghijklmnopqrstuvwxyz0123456789.,!?"],
    *"abcdefghijklmnopqrstuvwxyz0123456789",
    *["▁the", "▁sky", "▁is", "▁blue", "▁sea", "▁cat", "ing", "ed", "er"],
]
VOCAB = len(WORDS)


def vocabulary() -> dict[str, Any]:
    return {
        "tokenizer.ggml.model": "bert",
        "tokenizer.ggml.tokens": WORDS,
        "tokenizer.ggml.token_type": [3] * 5 + [1] * (VOCAB - 5),
        "tokenizer.ggml.token_type_count": 2,
        "tokenizer.ggml.bos_token_id": WORDS.index("[CLS]"),
        "tokenizer.ggml.eos_token_id": WORDS.index("[SEP]"),
        "tokenizer.ggml.seperator_token_id": WORDS.index("[SEP]"),
        "tokenizer.ggml.unknown_token_id": WORDS.index("[UNK]"),
        "tokenizer.ggml.mask_token_id": WORDS.index("[MASK]"),
        "tokenizer.ggml.add_eos_token": True,
        "tokenizer.ggml.add_sep_token": False,
    }


def tiny_bert(
    path: Path,
    family: str = "bert",
    *,
    pooling: int = 1,
    classes: int = 0,
    dense: bool = True,
    metadata: Mapping[str, Any] | None = None,
    seed: int = 1,
) -> Path:
    """Write a BERT; with ``classes`` a classifier, behind a ``dense`` layer or without one."""
    own = {
        "block_count": LAYERS,
        "context_length": CONTEXT,
        "embedding_length": WIDTH,
        "feed_forward_length": HIDDEN,
        "attention.head_count": HEADS,
        "attention.layer_norm_epsilon": 1e-12,
        "attention.causal": False,
        "pooling_type": pooling,
        **({"rope.freq_base": 1000.0} if family == "nomic-bert" else {}),
    }
    keys = {"general.architecture": family, **{f"{family}.{k}": v for k, v in own.items()}}
    shapes: dict[str, tuple[int, ...]] = {
        "token_embd.weight": (WIDTH, VOCAB),
        "token_types.weight": (WIDTH, 2),
        **_norm("token_embd_norm"),
    }
    if family == "bert":
        shapes["position_embd.weight"] = (WIDTH, CONTEXT)
    for layer in range(LAYERS):
        shapes |= (_bert_block if family == "bert" else _nomic_block)(f"blk.{layer}")
    if classes:
        shapes |= _linear("cls", WIDTH, WIDTH) if dense else {}
        shapes |= _linear("cls.output", WIDTH, classes)
        keys[f"{family}.classifier.output_labels"] = [f"label {n}" for n in range(classes)]
    numbers = random.Random(seed)
    tensors = {
        name: (shape, "F32", _numbers(numbers, name, shape)) for name, shape in shapes.items()
    }
    write(path, {**keys, **vocabulary(), **(metadata or {})}, tensors)
    return path


def _bert_block(prefix: str) -> dict[str, tuple[int, ...]]:
    return {
        **_linear(f"{prefix}.attn_q", WIDTH, WIDTH),
        **_linear(f"{prefix}.attn_k", WIDTH, WIDTH),
        **_linear(f"{prefix}.attn_v", WIDTH, WIDTH),
        **_linear(f"{prefix}.attn_output", WIDTH, WIDTH),
        **_norm(f"{prefix}.attn_output_norm"),
        **_linear(f"{prefix}.ffn_up", WIDTH, HIDDEN),
        **_linear(f"{prefix}.ffn_down", HIDDEN, WIDTH),
        **_norm(f"{prefix}.layer_output_norm"),
    }


def _nomic_block(prefix: str) -> dict[str, tuple[int, ...]]:
    """One projection for queries, keys and values, a gate, no biases."""
    return {
        f"{prefix}.attn_qkv.weight": (WIDTH, 3 * WIDTH),
        f"{prefix}.attn_output.weight": (WIDTH, WIDTH),
        **_norm(f"{prefix}.attn_output_norm"),
        f"{prefix}.ffn_up.weight": (WIDTH, HIDDEN),
        f"{prefix}.ffn_gate.weight": (WIDTH, HIDDEN),
        f"{prefix}.ffn_down.weight": (HIDDEN, WIDTH),
        **_norm(f"{prefix}.layer_output_norm"),
    }


def _linear(name: str, inputs: int, outputs: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (inputs, outputs), f"{name}.bias": (outputs,)}


def _norm(name: str) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (WIDTH,), f"{name}.bias": (WIDTH,)}


def _numbers(numbers: random.Random, name: str, shape: tuple[int, ...]) -> bytes:
    count = shape[0] * (shape[1] if len(shape) > 1 else 1)
    if "norm.weight" in name:
        values = [numbers.uniform(0.5, 2.0) for _ in range(count)]
    else:
        spread = 1.5 / shape[0] ** 0.5 if len(shape) > 1 else 0.3
        values = [numbers.gauss(0, spread) for _ in range(count)]
    return struct.pack(f"<{count}f", *values)
