"""Fixtures every room shares: the real models, taken from their packages on PyPI."""

from __future__ import annotations

from pathlib import Path

import pytest

try:
    import lhama.plugins.backend  # noqa: F401
except ModuleNotFoundError:
    pytest.exit("lhama is not installed: run scripts/test (or: pip install -e '.[dev]')", 4)

from lhama_testing_models import gemma3_path, minilm_folder, smollm2_path


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """SmolLM2-135M-Instruct Q4_1: llama architecture, ChatML template."""
    return smollm2_path()


@pytest.fixture(scope="session")
def gemma3() -> Path:
    """Gemma 3 270M Q4_K_M, a base model: sliding window, Q4_K, Q5_0, Q6_K and Q8_0 tensors."""
    return gemma3_path()


@pytest.fixture(scope="session")
def minilm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """all-MiniLM-L6-v2 as it is converted to GGUF: a BERT that embeds."""
    from lhama.backends.conversion.model import convert

    path = tmp_path_factory.mktemp("minilm") / "all-minilm-l6-v2.gguf"
    convert(minilm_folder(), path, lambda share, what: None)
    return path
