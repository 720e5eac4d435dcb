"""Models made by the real daemon, and what goes wrong on the way."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from lhama_testing_daemon import Daemon, running
from lhama_testing_models import minilm_folder, tiny_llama
from lhama_testing_tools import install

from lhama.plugins import gguf

SECRET = "canary-91c7e2d45a"


def upload(daemon: Daemon, path: Path) -> str:
    digest = "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()
    with path.open("rb") as file:
        request = urllib.request.Request(f"{daemon.url}/api/blobs/{digest}", file, method="POST")
        request.add_header("Content-Length", str(path.stat().st_size))
        urllib.request.urlopen(request, timeout=60).close()
    return digest


def upload_folder(daemon: Daemon, folder: Path) -> dict[str, str]:
    names = ["config.json", "modules.json", "1_Pooling/config.json", "model.safetensors"]
    names += ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"]
    return {name: upload(daemon, folder / name) for name in names}


def refusal(daemon: Daemon, body: dict[str, Any]) -> tuple[int, str]:
    with pytest.raises(urllib.error.HTTPError) as refused:
        daemon.call("/api/create", {**body, "stream": False})
    return refused.value.code, json.loads(refused.value.read())["error"]


def wait_until(condition: Callable[[], bool], seconds: float = 30) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and not condition():
        time.sleep(0.02)
    return condition()


def is_dead(process: psutil.Process) -> bool:
    """A zombie is: who should have read its status is gone, too."""
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def leftovers(store: Path) -> list[str]:
    return [path.name for path in (store / "blobs").iterdir() if path.name.startswith(".lhama")]


# ------------------------------------------------------------------------------- a whole way


def test_a_checkpoint_becomes_a_model_that_embeds(tmp_path: Path) -> None:
    with running(tmp_path / "models") as daemon:
        files = upload_folder(daemon, minilm_folder())
        lines = list(daemon.lines("/api/create", {"model": "mini", "files": files}))
        told = [line["status"] for line in lines]
        assert told[:2] == ["converting model", "verifying conversion"]
        assert told[2].startswith("creating new layer sha256:")
        assert told[3:] == ["writing manifest", "success"]
        shown = daemon.call("/api/show", {"model": "mini"})
        assert shown["capabilities"] == ["embedding"]
        assert shown["details"]["family"] == "bert"
        assert shown["details"]["quantization_level"] == "F16"
        reply = daemon.call("/api/embed", {"model": "mini", "input": ["Hello, world!"]})
        assert len(reply["embeddings"][0]) == 384
        daemon.call(
            "/api/create", {"model": "small", "from": "mini", "quantize": "q8_0", "stream": False}
        )
        again = daemon.call("/api/embed", {"model": "small", "input": ["Hello, world!"]})
        pairs = zip(reply["embeddings"][0], again["embeddings"][0], strict=True)
        assert sum(a * b for a, b in pairs) > 0.99
        assert leftovers(daemon.store) == []
        names = {path.name for path in (daemon.store / "blobs").iterdir()}
        used = {digest.replace(":", "-") for digest in files.values()}
        assert len(names - used) == 4, "weights and config of two models: the F16 between is gone"


@pytest.mark.cve("2026-7482")
def test_no_secret_of_the_daemon_gets_into_a_model(tmp_path: Path) -> None:
    path = tiny_llama(tmp_path / "x.gguf")
    secrets = {"AWS_SECRET_ACCESS_KEY": SECRET, "HF_TOKEN": SECRET}
    with running(tmp_path / "models", **secrets) as daemon:
        files = {"x.gguf": upload(daemon, path)}
        for level in ("", "Q8_0", "Q4_K_M"):
            body = {"model": f"m{level}", "files": files, "quantize": level, "stream": False}
            daemon.call("/api/create", body)
        for blob in (daemon.store / "blobs").iterdir():
            assert SECRET.encode() not in blob.read_bytes()


# ------------------------------------------------------------------------------------- faults


@contextmanager
def hanging(tmp_path: Path, **settings: str) -> Iterator[tuple[Daemon, dict[str, Any]]]:
    """A daemon, and a create whose tool never ends."""
    path = tmp_path / "odd.gguf"
    keys = {"general.architecture": "odd", "general.file_type": 1}
    gguf.write(path, keys, {"x": ((32,), "F32", bytes(128))})
    site = str(install(tmp_path / "site"))
    with running(tmp_path / "odd-models", PYTHONPATH=site, **settings) as daemon:
        files = {"odd.gguf": upload(daemon, path)}
        yield daemon, {"model": "m", "files": files, "quantize": "q8_0"}


def start(daemon: Daemon, body: dict[str, Any]) -> socket.socket:
    """Send a create and return when its tool works."""
    data = json.dumps(body).encode()
    client = socket.create_connection(("127.0.0.1", daemon.port))
    head = f"POST /api/create HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(data)}\r\n\r\n"
    client.sendall(head.encode() + data)
    assert wait_until(lambda: len(daemon.workers()) == 1 and bool(leftovers(daemon.store)))
    return client


def test_a_client_that_goes_ends_its_create(tmp_path: Path) -> None:
    with hanging(tmp_path) as (daemon, body):
        start(daemon, body).close()
        assert wait_until(lambda: not daemon.workers())
        assert wait_until(lambda: not leftovers(daemon.store))
        assert daemon.call("/api/tags") == {"models": []}


def test_a_killed_worker_is_said_in_ollamas_words(tmp_path: Path) -> None:
    with hanging(tmp_path) as (daemon, body), start(daemon, body) as client:
        daemon.workers()[0].kill()
        reply = b""
        while b"\n\r\n0\r\n" not in reply:
            reply += client.recv(4096)
        assert b'{"error":"llama-quantize failed: signal: killed"}' in reply
        assert leftovers(daemon.store) == []
        assert daemon.call("/api/tags") == {"models": []}


@pytest.mark.fault(4)
def test_a_killed_daemon_takes_its_worker_along_and_the_next_one_tidies_up(tmp_path: Path) -> None:
    with hanging(tmp_path) as (daemon, body), start(daemon, body):
        [worker] = daemon.workers()
        daemon.process.send_signal(signal.SIGKILL)
        assert wait_until(lambda: is_dead(worker))
        assert leftovers(daemon.store)
    with running(tmp_path / "odd-models") as daemon:
        assert leftovers(daemon.store) == []
        assert daemon.call("/api/tags") == {"models": []}


def test_a_stopped_daemon_leaves_nothing_of_a_create(tmp_path: Path) -> None:
    with hanging(tmp_path, LHAMA_SHUTDOWN_GRACE="1s") as (daemon, body), start(daemon, body):
        [worker] = daemon.workers()
        daemon.stop()
        assert wait_until(lambda: is_dead(worker))
        assert leftovers(daemon.store) == []


@pytest.mark.fault(20)
@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
def test_a_disk_that_fills_up_while_a_tool_writes(tmp_path: Path, minilm: Path) -> None:
    """The uploads fit, what is made of them does not."""
    store = tmp_path / "models"
    store.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=80m", "tmpfs", str(store)], check=True)
    try:
        with running(store) as daemon:
            folder = minilm_folder()
            made = {"files": {"x.gguf": upload(daemon, minilm)}}
            status, message = refusal(daemon, {"model": "m", **made})
            assert status == 500
            assert message.startswith("no space left on device while quantizing a model: free")
            assert leftovers(store) == []
            (store / "blobs" / made["files"]["x.gguf"].replace(":", "-")).unlink()
            subprocess.run(["mount", "-o", "remount,size=110m", str(store)], check=True)
            converted = {"files": upload_folder(daemon, folder)}
            status, message = refusal(daemon, {"model": "m", **converted})
            assert message.startswith("no space left on device while converting a model: free")
            assert leftovers(store) == []
            assert daemon.call("/api/tags") == {"models": []}
    finally:
        subprocess.run(["umount", str(store)], check=True)
