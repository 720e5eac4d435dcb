"""Checkpoints as Hugging Face has them, made of GGUF files: the way back of what is tested."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gguf as gguf_py
import numpy as np

from lhama.plugins import gguf
from lhama.plugins.gguf import GGUF

Values = np.ndarray[Any, Any]

LLAMA = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
GEMMA3 = {
    **LLAMA,
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}


def dequantised(path: Path, words: int = 1 << 20) -> Iterator[tuple[str, Values]]:
    """A file's tensors by their GGUF names, float32, in PyTorch's shapes; of the embedding the
    first ``words`` rows."""
    with path.open("rb") as file:
        for tensor in gguf.read(path).tensors.values():
            file.seek(tensor.offset)
            raw = np.frombuffer(file.read(tensor.nbytes), np.uint8)
            rows = raw.reshape(tensor.elements // tensor.shape[0], -1)
            if tensor.name == "token_embd.weight":
                rows = rows[:words]
            kind = gguf_py.GGMLQuantizationType(tensor.type)
            values = gguf_py.quants.dequantize(rows, kind).astype(np.float32)
            yield tensor.name, values if len(tensor.shape) > 1 else values.reshape(-1)


def renamed(name: str, names: dict[str, str]) -> str:
    match = re.fullmatch(r"(?:blk\.(\d+)\.)?(\w+)\.(weight|bias)", name)
    assert match is not None, name
    layer = f"model.layers.{match[1]}." if match[1] else ""
    return f"{layer}{names[match[2]]}.{match[3]}"


def halves(values: Values, heads: int) -> Values:
    """Rows of each head from neighbours to halves: what llama's conversion undoes."""
    pairs = values.reshape(heads, -1, 2, *values.shape[1:])
    return pairs.swapaxes(1, 2).reshape(values.shape)


def write_safetensors(path: Path, tensors: dict[str, Values], dtype: str) -> None:
    """``dtype`` is ``F32``, ``F16`` or ``BF16``."""
    encode: dict[str, Callable[[Values], Values]] = {
        "F32": lambda v: v.astype(np.float32),
        "F16": lambda v: v.astype(np.float16),
        "BF16": lambda v: (v.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16),
    }
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    parts, at = [], 0
    for name, values in tensors.items():
        data = encode[dtype](values).tobytes()
        header[name] = {
            "dtype": dtype,
            "shape": list(values.shape),
            "data_offsets": [at, at + len(data)],
        }
        parts.append(data)
        at += len(data)
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.writelines([struct.pack("<Q", len(text)), text, *parts])


def write_shards(folder: Path, tensors: dict[str, Values], dtype: str) -> None:
    """In two files with an index."""
    names = list(tensors)
    weight_map = {}
    for number, half in enumerate((names[::2], names[1::2])):
        file = f"model-{number + 1:05}-of-00002.safetensors"
        write_safetensors(folder / file, {name: tensors[name] for name in half}, dtype)
        weight_map |= dict.fromkeys(half, file)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def write_tokenizer_json(folder: Path, header: GGUF) -> None:
    """The byte-level BPE of ``header``, read with its vocabulary, in the form of ``tokenizers``."""
    tokens = header.get_list("tokenizer.ggml.tokens")
    types = header.get_list("tokenizer.ggml.token_type")
    special = [i for i, kind in enumerate(types) if kind == 3]
    merges = header.get_list("tokenizer.ggml.merges")
    tokenizer = {
        "version": "1.0",
        "added_tokens": [
            {"id": i, "content": tokens[i], "special": True, "normalized": False} for i in special
        ],
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Digits", "individual_digits": True},
                {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True},
            ],
        },
        "model": {
            "type": "BPE",
            "vocab": {token: i for i, token in enumerate(tokens)},
            "merges": [merge.split(" ") for merge in merges],
        },
    }
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    config = {
        "add_prefix_space": False,
        "chat_template": header.get_str("tokenizer.chat_template"),
        **{
            f"{kind}_token": tokens[header.get_int(f"tokenizer.ggml.{key}_token_id")]
            for kind, key in (
                ("bos", "bos"),
                ("eos", "eos"),
                ("unk", "unknown"),
                ("pad", "padding"),
            )
        },
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def write_tokenizer_model(folder: Path, header: GGUF) -> None:
    """The SentencePiece vocabulary of ``header``, as a model of the sentencepiece library, and
    its added tokens as transformers writes them."""
    tokens = header.get_list("tokenizer.ggml.tokens")
    scores = header.get_list("tokenizer.ggml.scores")
    types = header.get_list("tokenizer.ggml.token_type")
    unknown = header.get_int("tokenizer.ggml.unknown_token_id")
    out = bytearray()
    for index, (token, score, kind) in enumerate(zip(tokens, scores, types, strict=True)):
        kind = 2 if index == unknown else kind
        text = token.encode()
        piece = b"\x0a" + _varint(len(text)) + text + b"\x15" + struct.pack("<f", score)
        piece += b"\x18" + _varint(kind)
        out += b"\x0a" + _varint(len(piece)) + piece
    trainer = b"\x18\x02" + b"\xa8\x02" + _varint(unknown)  # BPE; the unknown token's id
    trainer += b"\x98\x02\x01"  # byte fallback
    out += b"\x12" + _varint(len(trainer)) + trainer
    normalizer = b"\x18\x00\x20\x00"  # no dummy prefix, extra spaces stay
    out += b"\x1a" + _varint(len(normalizer)) + normalizer
    (folder / "tokenizer.model").write_bytes(out)
    decoder = {
        str(i): {"content": token, "special": kind == 3}
        for i, (token, kind) in enumerate(zip(tokens, types, strict=True))
        if kind in (3, 4)
    }
    names = {
        f"{kind}_token": tokens[header.get_int(f"tokenizer.ggml.{kind}_token_id")]
        for kind in ("bos", "eos")
    }
    config = {"added_tokens_decoder": decoder, "add_bos_token": True, **names}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


# ------------------------------------------------------------------------------ a small llama

SMALL = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_hidden_layers": 2,
    "rms_norm_eps": 1e-5,
    "max_position_embeddings": 128,
    "vocab_size": 40,
}


def small_tensors() -> dict[str, Values]:
    """A llama of random numbers with the shapes of ``SMALL``."""
    numbers = np.random.default_rng(0)
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (40, 64),
        "model.norm.weight": (64,),
        "lm_head.weight": (40, 64),
    }
    for layer in (f"model.layers.{n}" for n in range(2)):
        shapes |= {
            f"{layer}.input_layernorm.weight": (64,),
            f"{layer}.post_attention_layernorm.weight": (64,),
            f"{layer}.self_attn.q_proj.weight": (64, 64),
            f"{layer}.self_attn.k_proj.weight": (32, 64),
            f"{layer}.self_attn.v_proj.weight": (32, 64),
            f"{layer}.self_attn.o_proj.weight": (64, 64),
            f"{layer}.mlp.gate_proj.weight": (96, 64),
            f"{layer}.mlp.up_proj.weight": (96, 64),
            f"{layer}.mlp.down_proj.weight": (64, 96),
        }
    return {name: numbers.standard_normal(shape, np.float32) for name, shape in shapes.items()}


def write_small(folder: Path) -> Path:
    """``folder`` with that llama, made, and a vocabulary of twenty-nine tokens."""
    folder.mkdir()
    write_safetensors(folder / "model.safetensors", small_tensors(), "F32")
    vocab = {chr(97 + n): n for n in range(26)} | {"ab": 26, "abc": 27}
    tokenizer: dict[str, Any] = {
        "added_tokens": [{"id": 28, "content": "<|end|>", "special": True}],
        "model": {"type": "BPE", "vocab": vocab, "merges": ["a b", "ab c"]},
        "pre_tokenizer": {"type": "ByteLevel"},
    }
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    (folder / "config.json").write_text(json.dumps(SMALL))
    return folder
