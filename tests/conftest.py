"""Fixtures every room shares: the real models, taken from their packages on PyPI."""

from __future__ import annotations

from pathlib import Path

import pytest

try:
    import lhama.plugins.backend  # noqa: F401
except ModuleNotFoundError:
    pytest.exit("lhama is not installed: run scripts/test (or: pip install -e '.[dev]')", 4)

from lhama_testing_models import gemma3_path, minilm_path, smollm2_path


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """SmolLM2-135M-Instruct Q4_1: llama architecture, ChatML template."""
    return smollm2_path()


@pytest.fixture(scope="session")
def gemma3() -> Path:
    """Gemma 3 270M Q4_K_M, a base model: sliding window, Q4_K, Q5_0, Q6_K and Q8_0 tensors."""
    return gemma3_path()


@pytest.fixture(scope="session")
def minilm() -> Path:
    """all-MiniLM-L6-v2 in float32: a BERT that embeds."""
    return minilm_path()
