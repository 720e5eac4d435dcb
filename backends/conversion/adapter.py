"""From a folder with a LoRA adapter (PEFT's or MLX's form) to a GGUF file."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
from gguf import GGUFWriter, get_tensor_name_map
from gguf.constants import MODEL_ARCH, MODEL_ARCH_NAMES, Keys, LlamaFileType

from lhama.backends.conversion import jsonfile, safetensors
from lhama.backends.conversion.config import Config
from lhama.backends.conversion.families.family import Values
from lhama.backends.conversion.permutation import interleave
from lhama.backends.conversion.safetensors import StoredTensor
from lhama.plugins import gguf
from lhama.plugins.backend import Progress, UnsupportedModel
from lhama.plugins.gguf import GGUF

_ARCHITECTURES: Final = {
    MODEL_ARCH_NAMES[arch]: arch
    for arch in (
        MODEL_ARCH.LLAMA,
        MODEL_ARCH.GEMMA,
        MODEL_ARCH.GEMMA2,
        MODEL_ARCH.GEMMA3,
        MODEL_ARCH.QWEN2,
        MODEL_ARCH.QWEN3,
    )
}
"""Whose layers have the names PEFT knows them by, one matrix each."""

_NAME: Final = re.compile(r"(?:base_model\.model\.)?(.+)\.(lora_[AaBb])(?:\.default)?(?:\.weight)?")


@dataclass
class Pair:
    """The two factors of one matrix' change: rank × inputs, outputs × rank."""

    a: Values | None = None
    b: Values | None = None
    names: list[str] = field(default_factory=list)


def convert(folder: Path, base: Path, target: Path, progress: Progress) -> None:
    """Write the adapter in ``folder``, made for the model ``base``, as a GGUF file, in F32.

    Raises ``UnsupportedModel`` for what cannot be converted or does not fit the base, ``OSError``.
    """
    config = Config(jsonfile.read(folder / "adapter_config.json"), "adapter_config.json")
    header = gguf.read(base)
    pairs = _pairs(header, safetensors.read_folder(folder), progress)
    writer = GGUFWriter(target, header.architecture)
    try:
        writer.add_type("adapter")
        writer.add_string(Keys.Adapter.TYPE, "lora")
        ranks = {len(pair.a) for pair in pairs.values() if pair.a is not None}
        writer.add_float32(Keys.Adapter.LORA_ALPHA, _alpha(config, ranks))
        writer.add_file_type(LlamaFileType.ALL_F32)
        for name, pair in pairs.items():
            writer.add_tensor(f"{name}.lora_a", pair.a)
            writer.add_tensor(f"{name}.lora_b", pair.b)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()


def _pairs(header: GGUF, stored: dict[str, StoredTensor], progress: Progress) -> dict[str, Pair]:
    """The adapter's matrices by the name of the base's they change."""
    arch = _ARCHITECTURES.get(header.architecture)
    if arch is None:
        raise UnsupportedModel(
            f"unsupported architecture: adapters of {header.architecture} models"
        )
    blocks = header.get_int(header.key("block_count"))
    names = get_tensor_name_map(arch, blocks)
    pairs: dict[str, Pair] = {}
    for index, tensor in enumerate(stored.values()):
        progress(index / len(stored), tensor.name)
        match = _NAME.fullmatch(tensor.name)
        layer = names.get_name(match[1]) if match else None
        if match is None or layer is None or len(tensor.shape) != 2:
            raise UnsupportedModel(
                f"the adapter's tensor {tensor.name} is no LoRA factor of a layer"
            )
        pair = pairs.setdefault(f"{layer}.weight", Pair())
        values = safetensors.float32(tensor)
        if match[2][-1].islower():  # MLX has both factors the other way round
            values = np.ascontiguousarray(values.T)
        pair.names.append(tensor.name)
        setattr(pair, match[2][-1].lower(), values)
    if not pairs:
        raise UnsupportedModel("the adapter has no tensors")
    for name, pair in pairs.items():
        _fit(header, name, pair)
    return pairs


def _fit(header: GGUF, name: str, pair: Pair) -> None:
    """Check a pair against the base's matrix, and turn it as llama's is turned."""
    matrix = header.tensors.get(name)
    if matrix is None:
        raise UnsupportedModel(f"the adapter changes {name}, which the base does not have")
    if pair.a is None or pair.b is None:
        raise UnsupportedModel(f"the adapter has one of two factors only: {pair.names[0]}")
    inputs, outputs = matrix.shape
    if pair.a.shape[1] != inputs or pair.b.shape != (outputs, len(pair.a)):
        raise UnsupportedModel(
            f"the adapter's {name} has the shapes {pair.a.shape} and {pair.b.shape}, "
            f"made for another base: this one's matrix is {outputs} × {inputs}"
        )
    heads = {
        "attn_q": header.get_int(header.key("attention.head_count")),
        "attn_k": header.get_int(header.key("attention.head_count_kv")),
    }.get(name.split(".")[-2], 0)
    if header.architecture == "llama" and heads:
        pair.b = interleave(pair.b, heads)


def _alpha(config: Config, ranks: set[int]) -> float:
    """GGUF's alpha: the change counts alpha ÷ rank."""
    for key in ("alpha_pattern", "modules_to_save", "use_dora", "fan_in_fan_out"):
        if config.truthy(key):
            raise UnsupportedModel(f"adapters with {key} are not supported")
    rank = max(ranks)
    mlx = config.section("lora_parameters")
    if "scale" in mlx:
        return mlx.number("scale") * mlx.number("alpha", default=float(rank))
    alpha = mlx.number("alpha") if "alpha" in mlx else config.number("lora_alpha")
    if not config.truthy("use_rslora"):
        return alpha
    if len(ranks) > 1:
        raise UnsupportedModel("adapters with use_rslora and several ranks are not supported")
    return alpha * math.sqrt(rank)
