"""A disk that is full before a pull, or becomes full under it."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from lhama_testing_pulls import QUICK, blob_files, pull, until, walk, weights
from lhama_testing_registry import Fault, Registry

from lhama.daemon.config import Settings
from lhama.daemon.errors import DiskFull
from lhama.daemon.registry import RegistryClient
from lhama.daemon.store import Store

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")

PATH = "library/big"


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Store]:
    """A store on a disk of 4 MB."""
    root = tmp_path / "models"
    root.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(root)], check=True)
    try:
        with Store(root) as store:
            yield store
    finally:
        subprocess.run(["umount", str(root)], check=True)


async def test_what_does_not_fit_is_not_begun(
    settings: Settings, small: Store, registry: Registry
) -> None:
    client = RegistryClient(settings, small, manner=QUICK)
    digest = registry.add_model(PATH, weights(5 << 20))["layers"][0]["digest"]
    words = f"no space left on device while making room for blob {digest[7:19]}: free some space in"
    with pytest.raises(DiskFull, match=words):
        await pull(client, registry, PATH)
    assert registry.served(digest) == 0
    assert blob_files(small) == []


@pytest.mark.fault(20)
async def test_a_disk_that_fills_up_is_given_back(
    settings: Settings, small: Store, registry: Registry
) -> None:
    client = RegistryClient(settings, small, manner=QUICK)
    registry.add_model("library/small", b"small")
    await pull(client, registry, "library/small")
    gate = asyncio.Event()
    digest = registry.add_model(PATH, weights(3 << 20))["layers"][0]["digest"]
    registry.fail(digest, *[Fault(after=1000, gate=gate)] * QUICK.parallel)
    pulling = asyncio.create_task(pull(client, registry, PATH))
    await until(lambda: registry.sending == QUICK.parallel)
    filler = small.root / "filler"
    filler.write_bytes(bytes(2 << 20))
    gate.set()
    with pytest.raises(DiskFull, match="no space left on device while writing blob"):
        await pulling
    filler.unlink()
    assert not [name for name in blob_files(small) if "partial" in name]
    assert [model.name.model for model in small.list()] == ["small"]
    await pull(client, registry, PATH)
    assert len(walk(small.root)) == 2
