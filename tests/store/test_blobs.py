from __future__ import annotations

import asyncio
import os
import resource
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from lhama_testing_golden import Recording
from lhama_testing_store import recordings

from lhama.daemon.errors import BadRequest, InvalidDigest, LhamaError, StoreError
from lhama.daemon.store import Digest, Store
from lhama.daemon.store.blobs import Blobs

HELLO = Digest.of(b"hello blob")


async def stream(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


def names(blobs: Blobs) -> list[str]:
    return sorted(os.listdir(blobs.folder))


async def test_receive(store: Store) -> None:
    assert not store.blobs.exists(HELLO)
    assert await store.blobs.receive(stream(b"hello", b" ", b"blob"), HELLO) == HELLO
    assert store.blobs.exists(HELLO)
    assert store.blobs.size(HELLO) == 10
    assert store.blobs.path(HELLO).read_bytes() == b"hello blob"
    assert await store.blobs.receive(stream(b"hello blob")) == HELLO
    assert names(store.blobs) == [HELLO.filename]


async def test_receive_in_pieces_larger_than_the_buffer(store: Store) -> None:
    data = os.urandom(5_000_000)
    digest = await store.blobs.receive(stream(data[:1], data[1:3_000_000], data[3_000_000:]))
    assert digest == Digest.of(data)
    assert store.blobs.path(digest).read_bytes() == data


async def test_mismatch_keeps_the_bytes_under_their_true_digest(store: Store) -> None:
    wrong = Digest.from_hex("0" * 64)
    with pytest.raises(BadRequest, match="digest mismatch, expected"):
        await store.blobs.receive(stream(b"hello blob"), wrong)
    assert names(store.blobs) == [HELLO.filename]


async def test_recorded_uploads(store: Store) -> None:
    """Every recorded blob upload and look-up, in order: status and error text."""
    for seen in recordings("blob"):
        if "intermediate" in seen.name or seen.name == "blob_get":
            continue
        status, error = await upload(store, seen.path.rpartition("/")[2], seen)
        if "post_ok" in seen.name:
            continue  # recorded as 200: the mismatch before it had stored these very bytes
        assert (seen.name, status) == (seen.name, seen.status)
        assert error in seen.reply


async def upload(store: Store, digest: str, seen: Recording) -> tuple[int, str]:
    """As the web answers: what is there is not received again."""
    head = seen.method == "HEAD"
    try:
        parsed = Digest.parse(digest)
        if store.blobs.exists(parsed):
            return 200, ""
        if head:
            return 404, ""
        await store.blobs.receive(stream(seen.body), parsed)
        return 201, ""
    except LhamaError as error:
        return error.status, "" if head else error.message.replace('"', '\\"')


async def test_a_broken_stream_leaves_nothing(store: Store) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"x" * 2_000_000
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        await store.blobs.receive(broken())
    assert names(store.blobs) == []


async def test_a_cancelled_upload_leaves_nothing(store: Store) -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 1_000_000
            await asyncio.sleep(0)

    for delay in (0.0, 0.001, 0.01, 0.05):
        task = asyncio.create_task(store.blobs.receive(endless()))
        await asyncio.sleep(delay)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert names(store.blobs) == []


def test_read_names_the_missing_blob(store: Store) -> None:
    with pytest.raises(StoreError, match=f"blob {HELLO} is missing .* pull or create"):
        store.blobs.read(HELLO)
    store.blobs.write(b"hello blob")
    with pytest.raises(StoreError, match="larger than 3 bytes"):
        store.blobs.read(HELLO, most=3)


def test_no_digest_leaves_the_folder(store: Store) -> None:
    outside = store.root.parent / "outside"
    outside.write_text("secret")
    for text in ("../../outside", "sha256:../../outside", "sha256-" + "0" * 60 + "/../x"):
        with pytest.raises(InvalidDigest):
            store.blobs.path(Digest.parse(text))


# -------------------------------------------------------------------------------------- start-up


def test_repair(store: Store) -> None:
    folder = store.blobs.folder
    (folder / ("sha256:" + HELLO.hex)).write_bytes(b"hello blob")
    (folder / ".lhama-1-leftover").write_bytes(b"x")
    (folder / ("sha256-" + "0" * 64 + "-partial")).write_bytes(b"x")
    store.blobs.repair()
    assert names(store.blobs) == sorted([HELLO.filename, f"sha256-{'0' * 64}-partial"])


def test_prune_keeps_the_young_and_the_used(store: Store) -> None:
    old, young, used = (store.blobs.write(bytes([n]))[0] for n in range(3))
    (store.blobs.folder / "rubbish").write_bytes(b"")
    for name in (old.filename, used.filename, "rubbish"):
        os.utime(store.blobs.folder / name, (0, 0))
    assert sorted(store.blobs.prune([used])) == sorted([old.filename, "rubbish"])
    assert names(store.blobs) == sorted([young.filename, used.filename])


# ------------------------------------------------------------------------------------- full disk


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Store]:
    """A store on a file system of 2 MB."""
    root = tmp_path / "small"
    root.mkdir()
    mounted = (
        os.geteuid() == 0
        and not subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(root)], capture_output=True
        ).returncode
    )
    if not mounted:
        pytest.skip("mounting a small file system needs root")
    try:
        with Store(root) as store:
            yield store
    finally:
        subprocess.run(["umount", str(root)], check=True)


async def test_full_disk(small_disk: Store) -> None:
    data = b"x" * 1_000_000
    with pytest.raises(StoreError, match=r"^no space left on device .*: free some space in /"):
        await small_disk.blobs.receive(stream(*[data] * 5))
    assert names(small_disk.blobs) == []
    assert await small_disk.blobs.receive(stream(b"hello blob")) == HELLO


async def test_file_size_limit(store: Store) -> None:
    """As a full disk, without needing one: the kernel refuses to write on."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_500_000, before[1]))
    try:
        with pytest.raises(StoreError, match=r"^no space left on device"):
            await store.blobs.receive(stream(*[b"x" * 1_000_000] * 3))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert names(store.blobs) == []
