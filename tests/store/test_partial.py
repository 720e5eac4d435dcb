"""Unfinished downloads on the disk: Ollama's layout, and what a crash leaves of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from crash_script import BLOB, PART

from lhama.daemon.errors import DiskFull, StoreError
from lhama.daemon.store import Digest, Store
from lhama.daemon.store.partial import Partial, part_size

DIGEST = Digest.of(BLOB)


def partial_of(store: Store) -> Partial:
    return Partial(store.blobs, DIGEST, len(BLOB), smallest_part=PART)


def record(store: Store, n: int) -> Path:
    return store.blobs.folder / f"{DIGEST.filename}-partial-{n}"


def fill(partial: Partial, share: int = 1) -> None:
    """Write a share (a half, a third) of what is missing of each part."""
    for part in partial.parts:
        partial.write(part, BLOB[part.position : part.position + part.missing // share])


@pytest.mark.parametrize(
    ("total", "size"),
    [
        (1, 100_000_000),
        (1_599_999_999, 100_000_000),
        (1_600_000_016, 100_000_001),
        (15_000_000_000, 937_500_000),
        (400_000_000_000, 1_000_000_000),
    ],
)
def test_parts_are_as_large_as_ollamas(total: int, size: int) -> None:
    assert part_size(total) == size


def test_the_files_are_ollamas(store: Store) -> None:
    partial = partial_of(store)
    partial.open()
    fill(partial, 2)
    partial.checkpoint()
    assert record(store, 1).read_bytes() == (b'{"N":1,"Offset":1000,"Size":1000,"Completed":500}\n')
    file = store.blobs.folder / f"{DIGEST.filename}-partial"
    assert file.stat().st_size == len(BLOB)
    assert file.read_bytes()[1000:1500] == BLOB[1000:1500]
    partial.close()


def test_what_ollama_left_is_taken_up(store: Store) -> None:
    file = store.blobs.folder / f"{DIGEST.filename}-partial"
    file.write_bytes(BLOB[:2500].ljust(len(BLOB), b"\0"))
    for n, (offset, size, completed) in enumerate([(0, 2000, 2000), (2000, 2000, 500)]):
        text = {"N": n, "Offset": offset, "Size": size, "Completed": completed}
        record(store, n).write_text(json.dumps(text) + "\n")
    partial = partial_of(store)
    partial.open()
    assert [part.missing for part in partial.parts] == [0, 1500]
    fill(partial)
    partial.publish()
    partial.close()
    assert store.blobs.read(DIGEST) == BLOB
    assert [path.name for path in store.blobs.folder.iterdir()] == [DIGEST.filename]


def test_an_empty_blob_has_no_parts(store: Store) -> None:
    empty = Digest.of(b"")
    partial = Partial(store.blobs, empty, 0)
    partial.open()
    assert partial.parts == []
    assert partial.hash(threading.Event()) == empty
    partial.publish()
    partial.close()
    assert store.blobs.read(empty) == b""


@pytest.mark.parametrize(
    "damage",
    [
        "",
        "{",
        "[]",
        '{"N":1,"Offset":1000,"Size":1000,"Completed":1001}',
        '{"N":1,"Offset":1000,"Size":1000,"Completed":-1}',
        '{"N":1,"Offset":999,"Size":1000,"Completed":0}',
        '{"N":1,"Offset":1000,"Size":0,"Completed":0}',
        '{"N":7,"Offset":1000,"Size":1000,"Completed":0}',
        '{"N":1,"Offset":1e3}',
    ],
)
def test_records_that_do_not_make_a_blob_are_void(store: Store, damage: str) -> None:
    """Ollama truncates a record to write it anew: a crash leaves it empty, and its pull stuck."""
    partial = partial_of(store)
    partial.open()
    fill(partial, 2)
    partial.checkpoint()
    partial.close()
    record(store, 1).write_text(damage)
    again = partial_of(store)
    again.open()
    assert again.completed == 0
    assert len(again.parts) == 4
    again.close()


def test_records_of_a_file_that_is_cut_off_are_not_believed(store: Store) -> None:
    partial = partial_of(store)
    partial.open()
    fill(partial)
    partial.checkpoint()
    partial.close()
    os.truncate(store.blobs.folder / f"{DIGEST.filename}-partial", 1300)
    again = partial_of(store)
    again.open()
    assert [part.completed for part in again.parts] == [1000, 300, 0, 0]
    again.close()


def test_another_size_begins_anew(store: Store) -> None:
    partial = partial_of(store)
    partial.open()
    fill(partial, 2)
    partial.checkpoint()
    partial.close()
    other = Partial(store.blobs, DIGEST, len(BLOB) + 1, smallest_part=PART)
    other.open()
    assert other.completed == 0
    other.close()


def test_room_is_asked_for_before_anything_is_fetched(store: Store) -> None:
    with pytest.raises(DiskFull, match=r"^no space left on device while making room for blob"):
        Partial(store.blobs, DIGEST, 1 << 62).open()
    assert list(store.blobs.folder.iterdir()) == []


def test_a_hash_can_be_stopped(store: Store) -> None:
    partial = partial_of(store)
    partial.open()
    stopped = threading.Event()
    stopped.set()
    with pytest.raises(StoreError, match="cancelled"):
        partial.hash(stopped)
    partial.close()


def test_a_crash_at_any_step_costs_only_what_was_not_recorded(store: Store, tmp_path: Path) -> None:
    store.close()
    script = Path(__file__).with_name("crash_script.py")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    ran = subprocess.run(
        [sys.executable, str(script), "download", str(store.root), str(tmp_path)],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    steps = int(ran.stdout)
    assert steps > 30
    kept = []
    for step in range(steps + 1):
        with Store(tmp_path / f"download-{step}") as crashed:
            if crashed.blobs.exists(DIGEST):
                kept.append(len(BLOB))
                assert crashed.blobs.read(DIGEST) == BLOB
                assert len(list(crashed.blobs.folder.iterdir())) == 1
                continue
            partial = partial_of(crashed)
            partial.open()
            kept.append(partial.completed)
            fill(partial)  # what is believed to be there is not written again
            assert partial.hash(threading.Event()) == DIGEST
            partial.publish()
            partial.close()
            assert len(list(crashed.blobs.folder.iterdir())) == 1
    assert kept == sorted(kept), "a later crash must not lose what an earlier one had"
    assert kept[0] == 0
    assert len(BLOB) // 2 in kept
    assert kept[-1] == len(BLOB)


class TestStartUp:
    def test_a_download_is_kept_for_a_week(self, store: Store) -> None:
        partial = partial_of(store)
        partial.open()
        fill(partial, 2)
        partial.checkpoint()
        partial.close()
        now = time.time()
        for path in store.blobs.folder.iterdir():
            os.utime(path, (now - 8 * 86400, now - 8 * 86400))
        os.utime(store.blobs.folder / f"{DIGEST.filename}-partial", (now, now - 6 * 86400))
        assert store.blobs.prune(()) == []
        assert len(store.blobs.prune((), now=now + 2 * 86400)) == 5

    def test_what_a_complete_download_left_is_removed(self, store: Store) -> None:
        store.blobs.write(BLOB)
        record(store, 0).write_text("{}")
        record(store, 0).with_name(f"{DIGEST.filename}-partial").write_bytes(b"x")
        store.close()
        store.open()
        assert [path.name for path in store.blobs.folder.iterdir()] == [DIGEST.filename]
