"""Layouts walked, names found in any case, copies, deletions, damage, locks."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from lhama_testing_golden import Recording
from lhama_testing_store import make, recordings, tiny_gguf

from lhama.daemon.durations import quote
from lhama.daemon.errors import InvalidName, LhamaError, ModelNotFound, StoreError
from lhama.daemon.store import Digest, ModelName, Store


def listed(store: Store) -> list[str]:
    return sorted(model.name.short for model in store.list())


def tree(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def blobs(store: Store) -> set[str]:
    return set(os.listdir(store.blobs.folder))


def n(text: str) -> ModelName:
    return ModelName.parse(text)


def test_layout(store: Store, tiny: str) -> None:
    make(store, model="a", files={"x.gguf": tiny})
    make(store, model="h.example:5000/ns/b:t", files={"x.gguf": tiny})
    manifests = store.root / "manifests"
    assert (manifests / "registry.ollama.ai/library/a/latest").is_file()
    assert (manifests / "h.example:5000/ns/b/t").is_file()
    assert listed(store) == ["a:latest", "h.example:5000/ns/b:t"]
    assert all(name.startswith("sha256-") and len(name) == 71 for name in blobs(store))
    assert stat.S_IMODE((manifests / "h.example:5000").stat().st_mode) == 0o755


def test_get(store: Store, tiny: str) -> None:
    make(store, model="a", files={"x.gguf": tiny}, system="S", parameters={"seed": 1})
    model = store.get("A:LATEST")
    assert (model.name.short, model.system, model.parameters) == ("a:latest", "S", {"seed": 1})
    assert model.files().weights == str(store.blobs.path(Digest.parse(tiny)))
    assert model.files().name == "a:latest"
    assert model.size == sum((store.blobs.folder / name).stat().st_size for name in blobs(store))
    assert model.header() is store.get("a").header()


def test_get_missing(store: Store) -> None:
    with pytest.raises(ModelNotFound, match=r"^model 'Nope' not found$"):
        store.get("Nope")
    with pytest.raises(ModelNotFound, match=r"^model 'nope:latest' not found$"):
        store.get(n("nope"))
    with pytest.raises(ModelNotFound, match=r"^gone$"):
        store.get("nope", missing="gone")
    for bad in ("../x", "a/../../b", ".."):
        with pytest.raises(InvalidName):
            store.get(bad)


def test_newest_first_by_whole_seconds(store: Store, tiny: str) -> None:
    make(store, model="b", files={"x.gguf": tiny})
    for name in ("a", "c", "d"):
        store.copy(n("b"), n(name))
    for name, when in (("a", 100.0), ("b", 200.2), ("c", 200.9), ("d", 150.0)):
        os.utime(store.root / f"manifests/registry.ollama.ai/library/{name}/latest", (when, when))
    assert [m.name.model for m in store.list()] == ["b", "c", "d", "a"]


def test_one_spelling_of_a_name(store: Store, tiny: str) -> None:
    make(store, model="Foo/Bar:Tag", files={"x.gguf": tiny})
    make(store, model="foo/bar:tag", files={"x.gguf": tiny}, system="S")
    store.copy(n("fOO/bAR:tAG"), n("FOO/BAR:TAG"))
    store.copy(n("foo/bar:tag"), n("foo/other"))
    store.copy(n("foo/bar:tag"), n("FOO/OTHER:latest"))
    assert listed(store) == ["Foo/Bar:Tag", "Foo/other:latest"]
    assert store.get("foo/BAR:tag").system == "S"
    store.delete(n("FOO/bar:TAG"))
    assert listed(store) == ["Foo/other:latest"]


def test_recorded_copies_and_deletions(store: Store, tiny: str) -> None:
    make(store, model="smollm2:135m", files={"x.gguf": tiny})
    for seen in recordings("copy", "delete"):
        if seen.name in ("delete_pulled", "delete_loaded") or seen.method == "GET":
            continue
        assert (seen.name, *answer(store, seen)) == (seen.name, seen.status, seen.reply)
    assert listed(store) == ["smollm2:135m", "x:latest"] or listed(store) == ["smollm2:135m"]


def answer(store: Store, seen: Recording) -> tuple[int, str]:
    """As the web answers: it words what the caller spelled."""
    import json

    body = json.loads(seen.body)
    try:
        if seen.path == "/api/copy":
            names = []
            for field in ("source", "destination"):
                text = body.get(field, "")
                try:
                    names.append(n(text))
                except InvalidName:
                    return 400, error(f"{field} {quote(text)} is invalid")
            try:
                store.copy(names[0], names[1])
            except ModelNotFound:
                return 404, error(f"model {quote(body['source'])} not found")
        else:
            text = body.get("model") or body.get("name")
            try:
                store.delete(n(text))
            except InvalidName:
                return 400, error(f"name {quote(text)} is invalid")
            except ModelNotFound:
                return 404, error(f"model '{text}' not found")
    except LhamaError as failed:
        return failed.status, error(failed.message)
    return 200, ""


def error(message: str) -> str:
    from lhama.daemon.protocol.replies import error_body

    return error_body(message).decode()


def test_copy_shares_the_blobs(store: Store, tiny: str) -> None:
    make(store, model="a", files={"x.gguf": tiny})
    before = blobs(store)
    store.copy(n("a"), n("b:t"))
    assert blobs(store) == before
    assert store.get("b:t").digest == store.get("a").digest
    with pytest.raises(ModelNotFound):
        store.copy(n("nope"), n("c"))


def test_delete_keeps_shared_blobs_and_removes_empty_folders(store: Store, tiny: str) -> None:
    make(store, model="a", files={"x.gguf": tiny}, system="of a")
    make(store, model="ns/b", files={"x.gguf": tiny}, system="of b")
    store.delete(n("ns/b"))
    assert store.get("a").system == "of a"
    assert Digest.of(b"of b").filename not in blobs(store)
    assert tree(store.root / "manifests")[-1] == "registry.ollama.ai/library/a/latest"
    store.delete(n("a"))
    assert blobs(store) == set()
    assert tree(store.root / "manifests") == []
    with pytest.raises(ModelNotFound):
        store.delete(n("a"))


def test_delete_with_a_layer_named_twice(store: Store, tiny: str) -> None:
    make(store, model="a", files={"x.gguf": tiny}, license=["MIT", "MIT"])
    store.delete(n("a"))
    assert blobs(store) == set()


def test_pinned_blobs_survive_a_delete(store: Store, tiny: str) -> None:
    make(store, model="a", files={"x.gguf": tiny})
    with store.pinned([Digest.parse(tiny)]):
        store.delete(n("a"))
    assert blobs(store) == {Digest.parse(tiny).filename}


# ----------------------------------------------------------------------------------------- damage


CORRUPT = (b"", b"{", b"\0" * 4096, b"null", b'{"layers":[{"digest":"sha256:../../x"}]}')


def test_corrupt_manifests_are_skipped(store: Store, tiny: str) -> None:
    make(store, model="good", files={"x.gguf": tiny})
    folder = store.root / "manifests/registry.ollama.ai/library"
    for number, data in enumerate(CORRUPT):
        (folder / f"bad{number}").mkdir()
        (folder / f"bad{number}/latest").write_bytes(data)
        with pytest.raises(StoreError, match=r"corrupt manifest.*pull or create the model again"):
            store.get(f"bad{number}")
    for odd in ("good/.hidden", "good/bad name", "stray", "good/deep/er/latest"):
        (folder / odd).parent.mkdir(parents=True, exist_ok=True)
        (folder / odd).write_text("x")
    assert listed(store) == ["good:latest"]
    store.copy(n("good"), n("other"))
    for number in range(len(CORRUPT)):
        store.delete(n(f"bad{number}"))
        assert not (folder / f"bad{number}").exists()
    assert listed(store) == ["good:latest", "other:latest"]


def test_a_missing_blob_is_named(store: Store, tiny: str) -> None:
    make(store, model="a", files={"x.gguf": tiny}, system="S")
    make(store, model="b", files={"x.gguf": tiny})
    store.blobs.path(Digest.of(b"S")).unlink()
    with pytest.raises(StoreError, match=f"blob {Digest.of(b'S')} is missing .*pull or create"):
        store.get("a")
    assert listed(store) == ["b:latest"]
    store.blobs.path(Digest.parse(tiny)).unlink()
    assert listed(store) == ["b:latest"]
    with pytest.raises(StoreError, match=r"of b:latest is missing .*pull or create"):
        store.get("b").header()


def test_a_truncated_blob_is_named(store: Store, tiny: str) -> None:
    make(store, model="a", files={"x.gguf": tiny})
    os.truncate(store.blobs.path(Digest.parse(tiny)), 50)
    with pytest.raises(StoreError, match=r"of a:latest is damaged \(truncated"):
        store.get("a").header()
    assert store.get("a").capabilities == []


def test_cloud_stubs_and_foreign_formats_have_no_files(store: Store, tiny: str) -> None:
    make(store, model="a", files={"x.gguf": tiny})
    model = store.get("a")
    model.config.remote_host = "ollama.com"
    with pytest.raises(StoreError, match="cloud"):
        model.files()
    model.config.remote_host, model.config.model_format = "", "safetensors"
    with pytest.raises(StoreError, match="lhama runs GGUF models"):
        model.files()


# --------------------------------------------------------------------------------------- start-up


def reopened(store: Store, **options: bool) -> Store:
    store.close()
    again = Store(store.root, **options)
    again.open()
    return again


@pytest.fixture
def orphan(store: Store, tiny: str) -> Iterator[Path]:
    """An old blob that no manifest names, beside one that a model names."""
    make(store, model="a", files={"x.gguf": tiny})
    digest, _ = store.blobs.write(b"orphan")
    for name in blobs(store):
        os.utime(store.blobs.folder / name, (0, 0))
    yield store.blobs.path(digest)
    Store(store.root).close()


def test_start_prunes_old_orphans(store: Store, orphan: Path) -> None:
    (store.root / "manifests/empty/folder").mkdir(parents=True)
    again = reopened(store)
    assert not orphan.exists()
    assert not (store.root / "manifests/empty").exists()
    assert again.get("a").header().architecture == "test"
    again.close()


def test_no_prune(store: Store, orphan: Path) -> None:
    reopened(store, prune=False).close()
    assert orphan.exists()


def test_no_prune_beside_a_corrupt_manifest(store: Store, orphan: Path) -> None:
    bad = store.root / "manifests/registry.ollama.ai/library/bad/latest"
    bad.parent.mkdir()
    bad.write_text("{")
    reopened(store).close()
    assert orphan.exists()


def test_start_removes_leftovers_and_renames(store: Store, tiny: str) -> None:
    make(store, model="a", files={"x.gguf": tiny})
    blob = store.blobs.path(Digest.parse(tiny))
    blob.rename(blob.with_name(tiny))
    stray = store.root / "manifests/registry.ollama.ai/library/a/.lhama-1-x"
    stray.write_text("half")
    again = reopened(store)
    assert again.get("a").header().architecture == "test"
    assert not stray.exists()
    again.close()


def test_an_existing_ollama_store_just_works(tmp_path: Path, real: Store) -> None:
    """A copy of a store lhama never opened: same layout, no file of ours in it."""
    shutil.copytree(real.root / "manifests", tmp_path / "models/manifests")
    (tmp_path / "models/blobs").mkdir()
    for blob in real.blobs.folder.iterdir():
        (tmp_path / "models/blobs" / blob.name).symlink_to(blob)
    with Store(tmp_path / "models") as store:
        assert listed(store) == ["gemma3:270m", "smollm2:135m"]
        assert store.get("gemma3:270m").header().parameter_count == 268_098_176
        assert [m.digest for m in store.list()] == [m.digest for m in real.list()]


# ------------------------------------------------------------------------------------------ locks


def test_a_second_daemon_is_told_of_the_first(store: Store) -> None:
    command = (
        "import sys; from pathlib import Path; from lhama.daemon.store import Store\n"
        "from lhama.daemon.errors import StoreError\n"
        "try: Store(Path(sys.argv[1])).open()\n"
        "except StoreError as error: print(error.message)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", command, str(store.root)], capture_output=True, text=True, check=True
    )
    assert f"in use by another lhama (pid {os.getpid()}): stop that one" in ran.stdout


def test_the_lock_ends_with_its_owner(store: Store) -> None:
    store.close()
    with Store(store.root) as second:
        assert second.writable
        with pytest.raises(StoreError, match="in use by another lhama"):
            store.open()


def test_read_only_store(store: Store, tiny: str, tmp_path: Path) -> None:
    make(store, model="a", files={"x.gguf": tiny})
    store.close()
    root = tmp_path / "mounted"
    root.mkdir()
    mounted = (
        os.geteuid() == 0
        and not subprocess.run(
            ["mount", "-o", "bind,ro", str(store.root), str(root)], capture_output=True
        ).returncode
    )
    if mounted:
        mounted = not subprocess.run(
            ["mount", "-o", "remount,bind,ro", str(root)], capture_output=True
        ).returncode
    if not mounted:
        pytest.skip("mounting read-only needs root")
    try:
        with Store(root) as frozen:
            assert not frozen.writable
            assert frozen.get("a").header().architecture == "test"
            for change in (
                lambda: frozen.delete(n("a")),
                lambda: frozen.copy(n("a"), n("b")),
                lambda: make(frozen, model="b", from_="a"),
            ):
                with pytest.raises(StoreError, match=r"cannot be written.*OLLAMA_MODELS"):
                    change()
    finally:
        subprocess.run(["umount", str(root)], check=True)


def test_header_cache_notices_a_changed_file(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    tiny_gguf(path, general__name="one")
    first = store.header(path)
    assert store.header(path) is first
    tiny_gguf(path, general__name="other")
    os.utime(path, ns=(1, 1))
    assert store.header(path).get_str("general.name") == "other"


def test_pinning_does_not_wait_for_a_change(store: Store) -> None:
    """The event loop pins: a disk that is slow to sync must not hold it up."""
    pinned = threading.Event()

    def pin() -> None:
        with store.pinned([Digest.of(b"x")]):
            pinned.set()

    with store.changing("something slow"):
        thread = threading.Thread(target=pin)
        thread.start()
        assert pinned.wait(10)
    thread.join()
