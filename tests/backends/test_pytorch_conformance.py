"""The PyTorch backend keeps the contract on SmolLM2, and on all-MiniLM where it embeds."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch")

from lhama_testing_traps import NAN_WORD, tiny_model

from lhama.backends.pytorch.backend import PyTorchBackend
from lhama.plugins.backend import ModelFiles
from lhama.plugins.testing import BackendConformance, Subject


@pytest.fixture(scope="module")
def subject(smollm2: Path, minilm: Path, tmp_path_factory: pytest.TempPathFactory) -> Subject:
    poisoned = tiny_model(tmp_path_factory.mktemp("poisoned"), poisoned=True)
    return Subject(
        PyTorchBackend(),
        ModelFiles("smollm2", str(smollm2)),
        poisoned=ModelFiles("poisoned", str(poisoned)),
        poison=NAN_WORD.replace("▁", " "),
        embedding=ModelFiles("minilm", str(minilm)),
    )


class TestPyTorch(BackendConformance):
    pass
