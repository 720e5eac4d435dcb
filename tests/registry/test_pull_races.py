"""Pull, delete, create, copy and push on a few names at once: every outcome is one of some order."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

import pytest
from lhama_testing_pulls import pull, walk
from lhama_testing_registry import Fault, Registry
from lhama_testing_worker import worker

from lhama.daemon.errors import LhamaError
from lhama.daemon.protocol.types import CreateRequest
from lhama.daemon.registry import RegistryClient
from lhama.daemon.store import ModelName, Store, create
from lhama.plugins import gguf

NAMES = ("library/a", "library/b")
TASKS = 50


@pytest.mark.fault(26)
@pytest.mark.parametrize("seed", range(4))
async def test_fifty_at_once(
    client: RegistryClient, registry: Registry, store: Store, tmp_path: object, seed: int
) -> None:
    chance = random.Random(seed)
    names = {path: ModelName.parse(f"{registry.host}/{path}") for path in NAMES}
    contents = [_gguf(store, n) for n in range(3)]

    def new_version() -> None:
        """The registry's models change under way; some blobs are shared, some come slowly."""
        path = chance.choice(NAMES)
        layer = registry.add_model(
            path, chance.choice(contents), system=chance.choice(["", "S", "T"])
        )["layers"][0]
        if chance.random() < 0.3:
            registry.fail(layer["digest"], Fault(after=100))

    async def pulled(path: str) -> None:
        await pull(client, registry, path)

    async def cancelled(path: str) -> None:
        task = asyncio.create_task(pull(client, registry, path))
        await asyncio.sleep(chance.random() * 0.05)
        task.cancel()
        await asyncio.wait({task})

    async def created(path: str) -> None:
        other = f"{registry.host}/{chance.choice(NAMES)}"
        request = CreateRequest(model=str(names[path]), from_=other, system=f"S{chance.random()}")

        def from_here(name: ModelName):  # type: ignore[no-untyped-def]
            return client.pull(name, insecure=True)

        async for _ in create.create(store, request, from_here, worker()):
            pass

    async def deleted(path: str) -> None:
        await asyncio.to_thread(store.delete, names[path])

    async def copied(path: str) -> None:
        target = ModelName.parse(f"{registry.host}/{chance.choice(NAMES)}")
        await asyncio.to_thread(store.copy, names[path], target)

    async def pushed(path: str) -> None:
        async for _ in client.push(str(names[path]), insecure=True):
            pass

    async def one(act: Callable[[str], Awaitable[None]], path: str, delay: float) -> str:
        await asyncio.sleep(delay)
        if chance.random() < 0.2:
            new_version()
        try:
            await act(path)
        except LhamaError as error:
            return f"{act.__name__}: {error.message}"
        return ""

    for path in NAMES:
        registry.add_model(path, contents[0])
    acts = [pulled, pulled, cancelled, created, deleted, copied, pushed]
    outcomes = await asyncio.gather(
        *(
            one(chance.choice(acts), chance.choice(NAMES), chance.random() * 0.3)
            for _ in range(TASKS)
        )
    )
    assert outcomes.count("") > TASKS // 4
    for outcome in filter(None, outcomes):
        # There was nothing to delete, copy, push or make a model from: a pull always works.
        gone = ("not found", "no such file", "is missing from the store")
        assert any(words in outcome for words in gone), outcome
        assert not outcome.startswith("pulled"), outcome
    # Whatever is listed is whole, and no two pulls left anything half done behind.
    for model in store.list():
        assert all(store.blobs.exists(digest) for digest in model.manifest.digests)
        assert model.header().architecture == "test"
    await pull(client, registry, NAMES[0])
    await pull(client, registry, NAMES[1])
    assert len(walk(store.root, unfinished=True)) == len(store.list())


def _gguf(store: Store, n: int) -> bytes:
    path = store.root / "x.gguf"
    gguf.write(
        path, {"general.architecture": "test", "n": n}, {"t": ((40_000,), "F32", bytes(160_000))}
    )
    try:
        return path.read_bytes()
    finally:
        path.unlink()
