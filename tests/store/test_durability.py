"""Crashes at every step, power loss by the order of syncs, and many hands on one name."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from lhama_testing_store import make

from lhama.daemon.errors import ModelNotFound, StoreError
from lhama.daemon.store import Digest, ModelName, Store, files

BASE, NEW = ModelName.parse("base"), ModelName.parse("new/name:tag")


def contents(store: Store) -> dict[str, tuple[str, dict[str, object]]]:
    """What is listed; every blob of it must be there and read well."""
    found = {}
    for model in store.list():
        assert all(store.blobs.exists(digest) for digest in model.manifest.digests)
        assert model.header().architecture == "test"
        found[model.name.short] = model.system, model.parameters
    return found


OLD = ("old", {"seed": 1})
CHANGED = ("new", {"seed": 2})
OUTCOMES = {
    "create": ({"base:latest": OLD}, {"base:latest": OLD, "new/name:tag": CHANGED}),
    "replace": ({"base:latest": OLD}, {"base:latest": CHANGED}),
    "copy": ({"base:latest": OLD}, {"base:latest": OLD, "new/name:tag": OLD}),
    "delete": ({"base:latest": OLD}, {}),
}


@pytest.mark.fault(22)
@pytest.mark.parametrize("kind", list(OUTCOMES))
def test_a_crash_leaves_the_old_state_or_the_new(
    store: Store, tiny: str, tmp_path: Path, kind: str
) -> None:
    make(store, model="base", files={"x.gguf": tiny}, system="old", parameters={"seed": 1})
    store.close()
    script = Path(__file__).with_name("crash_script.py")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    ran = subprocess.run(
        [sys.executable, str(script), kind, str(store.root), str(tmp_path)],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    steps = int(ran.stdout)
    assert steps >= 6
    before, after = OUTCOMES[kind]
    seen = []
    for step in range(steps + 1):
        with Store(tmp_path / f"{kind}-{step}") as crashed:
            found = contents(crashed)
            assert found in (before, after)
            seen.append(found == after)
            leftovers = list(crashed.root.rglob(".lhama-*"))
            assert leftovers == []
    assert seen == sorted(seen), "a later crash must not lose what an earlier one had"
    assert not seen[0]
    assert seen[-1]


@pytest.mark.fault(23)
def test_names_are_synced_after_what_they_name(
    store: Store, tiny: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Power loss: bytes reach the disk before their name does, blobs before the manifest."""
    synced: list[str] = []
    published: list[str] = []
    sync, publish = files.sync, files.publish

    def recording_sync(fd: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{fd}"))
        sync(fd)

    def checking_publish(partial: Path, path: Path) -> None:
        assert str(partial) in synced, f"{path.name} was named before it was synced"
        publish(partial, path)
        assert synced[-1] == str(path.parent), f"the name {path.name} was not synced"
        published.append(path.name)

    monkeypatch.setattr(files, "sync", recording_sync)
    monkeypatch.setattr(files, "publish", checking_publish)
    make(store, model="ns/a:t", files={"x.gguf": tiny}, system="S", parameters={"seed": 1})
    assert published[-1] == "t"
    model = store.get("ns/a:t")
    assert set(published[:-1]) == {
        digest.filename for digest in model.manifest.digests if str(digest) != tiny
    }
    for folder in (store.root / "manifests", *(store.root / "manifests").glob("*")):
        assert str(folder) in synced, "a new folder's name was not synced"


def test_a_failed_sync_leaves_the_old_model(
    store: Store, tiny: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(store, model="a", files={"x.gguf": tiny}, system="old")

    def fail(fd: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(files, "sync", fail)
    with pytest.raises(StoreError, match=r"failed while .*: Input/output error"):
        make(store, model="a", from_="a", system="new")
    monkeypatch.undo()
    assert store.get("a").system == "old"
    assert not list(store.root.rglob(".lhama-*-*"))


# -------------------------------------------------------------------------------- many at once


@pytest.mark.fault(26)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_concurrent_changes_of_one_name(store: Store, tiny: str, seed: int) -> None:
    """Create, copy, delete and list in eight threads: nothing listed ever lacks a blob."""
    make(store, model="base", files={"x.gguf": tiny}, system="base")
    names = [ModelName.parse(text) for text in ("one", "ONE", "two")]
    stop = threading.Event()

    def change(worker: int) -> int:
        rng = random.Random(seed * 100 + worker)
        done = 0
        for turn in range(25):
            name, kind = rng.choice(names), rng.randrange(3)
            try:
                if kind == 0:
                    system = f"{rng.randrange(3)}"
                    make(store, model=name.model, from_="base", system=system)
                elif kind == 1:
                    store.copy(rng.choice(names), name)
                else:
                    store.delete(name)
                done += 1
            except ModelNotFound:
                assert kind, f"create failed in turn {turn}"
        return done

    def watch() -> int:
        looks = 0
        while not stop.is_set():
            for name in [*names, BASE]:
                manifest = store.catalogue.read(name)
                if manifest is not None:
                    with store.pinned(manifest.digests):
                        current = store.catalogue.read(name)
                        if current == manifest:
                            assert all(map(store.blobs.exists, manifest.digests))
            looks += 1
        return looks

    with ThreadPoolExecutor(9) as pool:
        watcher = pool.submit(watch)
        changes = sum(pool.map(change, range(8)))
        stop.set()
        assert watcher.result() > 0
    assert changes > 50
    found = contents(store)
    assert found["base:latest"] == ("base", {})
    assert len([name for name in found if name.lower().startswith("one")]) <= 1
    used = {digest.filename for model in store.list() for digest in model.manifest.digests}
    assert used <= set(os.listdir(store.blobs.folder))
    assert not store._pins


def test_an_upload_shared_with_a_deleted_model(store: Store, tiny: str) -> None:
    """The blob of a running create is not taken away by the delete of another model with it."""
    make(store, model="a", files={"x.gguf": tiny}, system="S")
    with store.pinned([Digest.parse(tiny)]):
        store.delete(ModelName.parse("a"))
        assert store.blobs.exists(Digest.parse(tiny))
    make(store, model="b", files={"x.gguf": tiny})
    assert contents(store) == {"b:latest": ("", {})}
