"""The reference backend keeps the contract, with either feed and with groups of slots."""

from __future__ import annotations

from pathlib import Path

import pytest

from lhama.backends.reference.model import RANK, Behaviour, write
from lhama.backends.reference.plugin import ReferenceBackend
from lhama.plugins.backend import LoadOptions, ModelFiles
from lhama.plugins.testing import BackendConformance, Subject


@pytest.fixture(scope="module", params=["host", "device", "groups"])
def subject(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Subject:
    folder = tmp_path_factory.mktemp("reference")
    groups = 2 if request.param == "groups" else 1
    feed = "host" if groups > 1 else request.param

    def model(name: str, **behaviour: object) -> ModelFiles:
        path: Path = folder / f"{name}.gguf"
        write(path, Behaviour(token_feed=feed, groups=groups, **behaviour))  # type: ignore[arg-type]
        return ModelFiles(name, str(path))

    return Subject(
        ReferenceBackend(),
        model("plain"),
        LoadOptions(slots=4, context=128, batch=64),
        poisoned=model("poisoned", fault="poison", fault_step=ord("#")),
        poison="This ends with #",
        embedding=model("embeds", pooling=1),
        ranking=model("ranks", pooling=RANK),
    )


class TestReference(BackendConformance):
    pass
