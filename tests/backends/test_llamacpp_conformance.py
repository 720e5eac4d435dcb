"""The llama.cpp backend keeps the contract on SmolLM2, and on all-MiniLM where it embeds."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("llama_cpp")

from lhama_testing_traps import NAN_WORD, tiny_model
from lhama_testing_vision import png, write_projector

from lhama.backends.llamacpp.backend import LlamaCppBackend
from lhama.plugins.backend import ModelFiles
from lhama.plugins.testing import BackendConformance, Subject

SMOLLM2_WIDTH = 576


@pytest.fixture(scope="module")
def subject(smollm2: Path, minilm: Path, tmp_path_factory: pytest.TempPathFactory) -> Subject:
    folder = tmp_path_factory.mktemp("conformance")
    poisoned = tiny_model(folder, poisoned=True)
    write_projector(folder / "mmproj.gguf", SMOLLM2_WIDTH)
    return Subject(
        LlamaCppBackend(),
        ModelFiles("smollm2", str(smollm2)),
        poisoned=ModelFiles("poisoned", str(poisoned)),
        poison=NAN_WORD.replace("▁", " "),
        embedding=ModelFiles("minilm", str(minilm)),
        seeing=ModelFiles("seer", str(smollm2), projectors=(str(folder / "mmproj.gguf"),)),
        picture=png(1),
    )


class TestLlamaCpp(BackendConformance):
    pass
