"""Stores for the tests: empty ones with tiny models, and one with the two real ones."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from lhama_testing_store import make, tiny_gguf

from lhama.daemon.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "models") as store:
        yield store


@pytest.fixture
def tiny(store: Store, tmp_path: Path) -> str:
    """Digest of an uploaded tiny GGUF."""
    return str(store.blobs.write(tiny_gguf(tmp_path / "tiny.gguf"))[0])


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory, smollm2: Path, gemma3: Path) -> Iterator[Store]:
    """``smollm2:135m`` and ``gemma3:270m``, made from their files."""
    with Store(tmp_path_factory.mktemp("store") / "models") as store:
        for name, path in (("smollm2:135m", smollm2), ("gemma3:270m", gemma3)):
            make(
                store,
                model=name,
                files={"model.gguf": str(store.blobs.write(path.read_bytes())[0])},
            )
        yield store
