"""LoRA adapters, converted and applied, against the matrices they were merged into."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import Values, small_tensors, write_safetensors, write_small
from pytorch_oracle import Oracle

from lhama.backends.conversion import adapter, model
from lhama.backends.conversion.converter import SafetensorsConverter
from lhama.plugins import gguf
from lhama.plugins.backend import UnsupportedModel
from lhama.plugins.gguf import GGUF

import torch  # isort: skip - llama.cpp's library comes first

TOKENS = [0, 3, 27, 28, 5, 26]
RANK = 4
CONFIG = {"peft_type": "LORA", "r": RANK, "lora_alpha": 6, "target_modules": ["q_proj"]}


def factors(*modules: str) -> dict[str, tuple[Values, Values]]:
    """Of each module the factors A (rank × inputs) and B (outputs × rank)."""
    numbers, tensors = np.random.default_rng(1), small_tensors()
    found = {}
    for module in modules:
        outputs, inputs = tensors[f"{module}.weight"].shape
        a = numbers.standard_normal((RANK, inputs), np.float32) / 4
        found[module] = a, numbers.standard_normal((outputs, RANK), np.float32) / 4
    return found


MODULES = (
    "model.layers.0.self_attn.q_proj",
    "model.layers.1.self_attn.k_proj",
    "model.layers.0.self_attn.v_proj",
    "model.layers.1.mlp.down_proj",
)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    target = tmp_path / "base.gguf"
    model.convert(write_small(tmp_path / "base"), target, lambda share, note: None)
    return target


def write(folder: Path, config: dict[str, Any], tensors: dict[str, Values], name: str = "") -> Path:
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps(config))
    write_safetensors(folder / (name or "adapter_model.safetensors"), tensors, "F32")
    return folder


def peft(pairs: dict[str, tuple[Values, Values]]) -> dict[str, Values]:
    tensors = {}
    for module, (a, b) in pairs.items():
        tensors[f"base_model.model.{module}.lora_A.weight"] = a
        tensors[f"base_model.model.{module}.lora_B.weight"] = b
    return tensors


def convert(folder: Path, base: Path) -> GGUF:
    target = folder / "adapter.gguf"
    adapter.convert(folder, base, target, lambda share, note: None)
    return gguf.read(target)


def logits(path: Path, adapter: Path | None = None) -> torch.Tensor:
    oracle = Oracle(path, 64, adapter)
    found = oracle.logits(TOKENS)
    oracle.close()
    return found


def merged(tmp_path: Path, pairs: dict[str, tuple[Values, Values]], scale: float) -> torch.Tensor:
    """Logits of the base with the changes added to its matrices."""
    folder, tensors = write_small(tmp_path / "merged"), small_tensors()
    for module, (a, b) in pairs.items():
        tensors[f"{module}.weight"] += scale * b @ a
    write_safetensors(folder / "model.safetensors", tensors, "F32")
    model.convert(folder, tmp_path / "merged.gguf", lambda share, note: None)
    return logits(tmp_path / "merged.gguf")


def check(found: torch.Tensor, expected: torch.Tensor, plain: torch.Tensor) -> None:
    assert torch.cosine_similarity(found, expected, dim=1).min() > 0.9999
    assert torch.cosine_similarity(found, plain, dim=1).max() < 0.999, "it changes something"


def test_an_adapter_of_peft(base: Path, tmp_path: Path) -> None:
    pairs = factors(*MODULES)
    header = convert(write(tmp_path / "a", CONFIG, peft(pairs)), base)
    assert header.metadata["general.type"] == "adapter"
    assert header.metadata["adapter.type"] == "lora"
    assert header.metadata["adapter.lora.alpha"] == 6.0
    assert header.architecture == "llama"
    assert header.tensors["blk.1.ffn_down.weight.lora_a"].shape == (96, RANK)
    assert header.tensors["blk.1.ffn_down.weight.lora_b"].shape == (RANK, 64)
    found = logits(base, Path(header.path))
    check(found, merged(tmp_path, pairs, 6 / RANK), logits(base))


def test_an_adapter_of_mlx(base: Path, tmp_path: Path) -> None:
    pairs = factors(*MODULES)
    tensors = {}
    for module, (a, b) in pairs.items():
        tensors[f"{module}.lora_a"] = np.ascontiguousarray(a.T)
        tensors[f"{module}.lora_b"] = np.ascontiguousarray(b.T)
    config = {"fine_tune_type": "lora", "lora_parameters": {"rank": RANK, "scale": 2.0}}
    header = convert(write(tmp_path / "a", config, tensors, "adapters.safetensors"), base)
    assert header.metadata["adapter.lora.alpha"] == 2.0 * RANK
    check(logits(base, Path(header.path)), merged(tmp_path, pairs, 2.0), logits(base))


def test_rank_stabilised(base: Path, tmp_path: Path) -> None:
    pairs = factors(*MODULES)
    header = convert(write(tmp_path / "a", {**CONFIG, "use_rslora": True}, peft(pairs)), base)
    assert header.metadata["adapter.lora.alpha"] == pytest.approx(6 * RANK**0.5)
    check(logits(base, Path(header.path)), merged(tmp_path, pairs, 6 / RANK**0.5), logits(base))


ONE = peft(factors(MODULES[0]))
A, B = ONE


@pytest.mark.parametrize(
    ("config", "tensors", "message"),
    [
        ({"use_dora": True}, ONE, "adapters with use_dora are not supported"),
        ({"modules_to_save": ["lm_head"]}, ONE, "adapters with modules_to_save are not supported"),
        ({"alpha_pattern": {"x": 1}}, ONE, "adapters with alpha_pattern are not supported"),
        ({"lora_alpha": None}, ONE, "adapter_config.json has no lora_alpha"),
        ({"lora_alpha": "6"}, ONE, "lora_alpha must be a number"),
        ({}, {}, "the adapter has no tensors"),
        ({}, {A: ONE[A]}, "the adapter has one of two factors only"),
        ({}, {**ONE, "base_model.model.model.norm.weight": np.zeros(64)}, "is no LoRA factor"),
        (
            {},
            {A.replace("layers.0", "layers.7"): ONE[A], B.replace("layers.0", "layers.7"): ONE[B]},
            "is no LoRA factor",
        ),
        ({}, {A: np.zeros((RANK, 96)), B: ONE[B]}, "made for another base"),
        ({}, {A: ONE[A], B: np.zeros((64, RANK + 1))}, "made for another base"),
    ],
)
def test_what_does_not_fit_is_said_in_words(
    base: Path, tmp_path: Path, config: dict[str, Any], tensors: dict[str, Values], message: str
) -> None:
    folder = write(tmp_path / "a", {**CONFIG, **config}, tensors)
    with pytest.raises(UnsupportedModel, match=message):
        convert(folder, base)


def test_another_architecture_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "base.gguf"
    gguf.write(path, {"general.architecture": "mamba"}, {"x": ((4,), "F32", bytes(16))})
    with pytest.raises(
        UnsupportedModel, match="unsupported architecture: adapters of mamba models"
    ):
        convert(write(tmp_path / "a", CONFIG, ONE), path)


def test_through_the_contract(base: Path, tmp_path: Path) -> None:
    folder, shares = write(tmp_path / "a", CONFIG, ONE), list[float]()
    SafetensorsConverter().convert_adapter(
        str(folder), str(base), str(tmp_path / "x"), lambda share, note: shares.append(share)
    )
    assert gguf.read(tmp_path / "x").metadata["general.type"] == "adapter"
    assert shares == sorted(shares)
