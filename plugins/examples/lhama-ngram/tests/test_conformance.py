"""The backend keeps lhama's contract: a hundred checks, inherited."""

from __future__ import annotations

from pathlib import Path

import pytest
from lhama_ngram.backend import NgramBackend
from lhama_ngram.training import train

from lhama.plugins.backend import LoadOptions, ModelFiles
from lhama.plugins.testing import BackendConformance, Subject

TEXT = Path(__file__).parents[1] / "README.md"


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    path = tmp_path_factory.mktemp("ngram") / "readme.gguf"
    train([TEXT.read_bytes()], path, "readme")
    options = LoadOptions(slots=4, context=128, batch=64)
    return Subject(NgramBackend(), ModelFiles("readme", str(path)), options)


class TestNgram(BackendConformance):
    pass
