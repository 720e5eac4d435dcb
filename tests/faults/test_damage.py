"""A store that is damaged, full or shared."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.error
from pathlib import Path

import pytest
from lhama_testing_daemon import Daemon, running
from lhama_testing_faults import SLOW, ask, refusal

from lhama.backends.reference.model import write

NEEDS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")


@pytest.mark.fault(20)
@NEEDS_ROOT
def test_a_full_disk_is_reported_and_nothing_half_written_is_listed(
    tmp_path: Path, smollm2: Path
) -> None:
    store = tmp_path / "models"
    store.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(store)], check=True)
    try:
        write(tmp_path / "small.gguf", SLOW)
        with running(store) as daemon:
            daemon.create("small", tmp_path / "small.gguf")
            with pytest.raises(urllib.error.HTTPError) as refused:
                daemon.create("big", smollm2)
            with refused.value as reply:
                assert "no space left on device" in json.loads(reply.read())["error"]
            assert [m["name"] for m in daemon.call("/api/tags")["models"]] == ["small:latest"]
            assert ask(daemon, "small")["response"]
            left = sum(f.stat().st_size for f in (store / "blobs").iterdir())
            assert left < 1 << 20, "the unfinished upload must be removed"
    finally:
        subprocess.run(["umount", str(store)], check=True)


@pytest.mark.fault(21)
@NEEDS_ROOT
def test_a_disk_that_becomes_read_only_still_serves(tmp_path: Path) -> None:
    store = tmp_path / "models"
    store.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(store)], check=True)
    try:
        write(tmp_path / "slow.gguf", SLOW)
        with running(store) as daemon:
            daemon.create("slow", tmp_path / "slow.gguf")
        subprocess.run(["mount", "-o", "remount,ro", str(store)], check=True)
        with running(store) as daemon:
            assert ask(daemon)["response"]
            copy = {"source": "slow", "destination": "other"}
            status, message = refusal(daemon, "/api/copy", copy)
            assert status == 500
            assert "cannot be written" in message
            status, message = refusal(daemon, "/api/delete", {"model": "slow"}, "DELETE")
            assert "cannot be written" in message
            assert ask(daemon)["response"]
    finally:
        subprocess.run(["umount", str(store)], check=True)


@pytest.mark.fault(24)
@pytest.mark.parametrize("content", [b"", b"\0" * 200, b'{"layers":[{"digest":"../../x"}]}', b"[]"])
def test_a_broken_manifest_hurts_its_own_model_only(daemon: Daemon, content: bytes) -> None:
    daemon.call("/api/copy", {"source": "slow", "destination": "broken"})
    (path,) = daemon.store.glob("manifests/*/*/broken/latest")
    path.write_bytes(content)
    assert [m["name"] for m in daemon.call("/api/tags")["models"]] == ["slow:latest"]
    assert "manifest skipped" in daemon.log.read_text()
    status, message = refusal(daemon, "/api/generate", {"model": "broken", "prompt": "x"})
    assert status == 500
    assert "corrupt manifest" in message
    assert ask(daemon)["response"]
    daemon.call("/api/create", {"model": "broken", "from": "slow", "stream": False})
    assert ask(daemon, "broken")["response"], "made again, it works"


@pytest.mark.fault(25)
@pytest.mark.parametrize("damage", ["missing", "truncated", "empty"])
def test_a_damaged_blob_is_named_and_nothing_loops(daemon: Daemon, damage: str) -> None:
    blob = max((daemon.store / "blobs").iterdir(), key=lambda path: path.stat().st_size)
    if damage == "missing":
        blob.unlink()
    else:
        os.truncate(blob, 0 if damage == "empty" else blob.stat().st_size // 2)
    for _ in range(3):
        status, message = refusal(daemon, "/api/generate", {"model": "slow", "prompt": "x"})
        assert status == 500
        assert blob.name.removeprefix("sha256-")[:12] in message
        assert daemon.runners() == []
    assert daemon.call("/api/version")["version"]


@pytest.mark.fault(27)
def test_two_daemons_do_not_share_a_store(daemon: Daemon) -> None:
    with pytest.raises(AssertionError) as second, running(daemon.store):
        pass
    assert str(daemon.process.pid) in str(second.value), "the message names who holds it"
    assert ask(daemon)["response"]


def test_a_taken_port_is_said_in_words(daemon: Daemon, tmp_path: Path) -> None:
    environment = os.environ | {
        "OLLAMA_HOST": f"127.0.0.1:{daemon.port}",
        "OLLAMA_MODELS": str(tmp_path / "other"),
    }
    command = [sys.executable, "-m", "lhama.daemon.cli", "serve"]
    second = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30)
    assert second.returncode != 0
    assert "already in use" in second.stderr
    assert "Traceback" not in second.stderr
