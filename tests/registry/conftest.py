"""A registry, a store, and a client between them that is quick to try again."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from lhama_testing_pulls import QUICK
from lhama_testing_registry import Registry, serving

from lhama.daemon.config import Settings
from lhama.daemon.registry import RegistryClient
from lhama.daemon.store import Store


@pytest.fixture
async def registry() -> AsyncIterator[Registry]:
    async with serving() as registry:
        yield registry


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "models") as store:
        yield store


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(models=tmp_path / "models", identity=tmp_path / "home" / "id_ed25519")


@pytest.fixture
def client(settings: Settings, store: Store) -> RegistryClient:
    return RegistryClient(settings, store, manner=QUICK)
