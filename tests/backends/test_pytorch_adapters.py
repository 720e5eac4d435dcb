"""LoRA adapters in PyTorch against llama.cpp's."""

from __future__ import annotations

import random
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_models import HEAD_DIM, HEADS, HIDDEN, KV_HEADS, WIDTH, tiny

from lhama.backends.llamacpp.backend import LlamaCppBackend
from lhama.backends.pytorch.backend import PyTorchBackend
from lhama.plugins.backend import Engine, LoadOptions, ModelFiles, UnsupportedModel
from lhama.plugins.gguf import write

RANK, LAYERS = 4, 3
SHAPES = {
    "attn_q": (WIDTH, HEADS * HEAD_DIM),
    "attn_k": (WIDTH, KV_HEADS * HEAD_DIM),
    "attn_v": (WIDTH, KV_HEADS * HEAD_DIM),
    "attn_output": (HEADS * HEAD_DIM, WIDTH),
    "ffn_gate": (WIDTH, HIDDEN),
    "ffn_down": (HIDDEN, WIDTH),
}


def adapter(path: Path, family: str, **metadata: Any) -> Path:
    """A random change of every third matrix and more."""
    numbers = random.Random(7)
    tensors = {}
    for layer in range(LAYERS):
        for name, (inputs, outputs) in SHAPES.items():
            for part, shape in (("a", (inputs, RANK)), ("b", (RANK, outputs))):
                values = [numbers.gauss(0, 0.15) for _ in range(shape[0] * shape[1])]
                data = struct.pack(f"<{len(values)}f", *values)
                tensors[f"blk.{layer}.{name}.weight.lora_{part}"] = (shape, "F32", data)
    keys = {
        "general.architecture": family,
        "general.type": "adapter",
        "adapter.type": "lora",
        "adapter.lora.alpha": 8.0,
        **metadata,
    }
    write(path, keys, tensors)
    return path


def load(backend: LlamaCppBackend | PyTorchBackend, base: Path, *adapters: Path) -> Engine:
    files = ModelFiles("m", str(base), adapters=tuple(map(str, adapters)))
    options = LoadOptions(slots=1, context=256, batch=64, threads=1, embedding=True)
    return backend.load(files, options, lambda share, what: None)


def vector(engine: Engine) -> torch.Tensor:
    [found] = engine.embed([[1, *range(20, 60)]]).result()
    engine.close()
    return torch.frombuffer(bytearray(found), dtype=torch.float32)


@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma3"])
def test_an_adapter_changes_what_it_changes_in_llama_cpp(family: str, tmp_path: Path) -> None:
    base = tiny(tmp_path / "m.gguf", family, layers=LAYERS, metadata={"pooling_type": 3})
    lora = adapter(tmp_path / "lora.gguf", family)
    plain = vector(load(PyTorchBackend(), base))
    changed = vector(load(PyTorchBackend(), base, lora))
    expected = vector(load(LlamaCppBackend(), base, lora))
    assert torch.cosine_similarity(plain, changed, dim=0) < 0.99
    assert torch.cosine_similarity(changed, expected, dim=0) > 0.9999


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({"general.type": "model"}, "no LoRA adapter"),
        ({"adapter.type": "ia3"}, "no LoRA adapter"),
        ({"general.architecture": "qwen3"}, "is for qwen3 models, this is llama"),
    ],
)
def test_adapters_that_do_not_fit(metadata: dict[str, Any], words: str, tmp_path: Path) -> None:
    base = tiny(tmp_path / "m.gguf", "llama", layers=LAYERS)
    lora = adapter(tmp_path / "lora.gguf", "llama", **metadata)
    with pytest.raises(UnsupportedModel, match=words):
        load(PyTorchBackend(), base, lora)


def test_an_adapter_for_more_layers_than_there_are(tmp_path: Path) -> None:
    base = tiny(tmp_path / "m.gguf", "llama", layers=LAYERS - 1)
    lora = adapter(tmp_path / "lora.gguf", "llama")
    with pytest.raises(UnsupportedModel, match=r"changes 'blk.2.attn_k.weight.lora_a'"):
        load(PyTorchBackend(), base, lora)
    missing = tmp_path / "none.gguf"
    with pytest.raises(UnsupportedModel, match="cannot be read"):
        load(PyTorchBackend(), base, missing)
