"""Real faults against the real daemon: what dies, who notices, what goes on."""

from __future__ import annotations

import json
import os
import re
import signal
import struct
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from lhama_testing_daemon import Daemon, running
from lhama_testing_models import changed_copy

from lhama.backends.reference.model import Behaviour, write
from lhama.plugins import gguf

SLOW = Behaviour(compute_us=20_000)


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    """A daemon with a model that takes 20 ms a token."""
    write(tmp_path / "slow.gguf", SLOW)
    with running(tmp_path / "models") as daemon:
        daemon.create("slow", tmp_path / "slow.gguf")
        yield daemon


def ask(daemon: Daemon, model: str = "slow", tokens: int = 3, **more: Any) -> dict[str, Any]:
    body = {"model": model, "prompt": "hello", "stream": False, "options": {"num_predict": tokens}}
    reply: dict[str, Any] = daemon.call("/api/generate", body | more)
    return reply


def refusal(daemon: Daemon, path: str, body: dict[str, Any], method: str = "") -> tuple[int, str]:
    """Status and message of a request that must fail."""
    with pytest.raises(urllib.error.HTTPError) as refused:
        daemon.call(path, body, method)
    return refused.value.code, json.loads(refused.value.read())["error"]


def wait_until(condition: Any, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return bool(condition())


def test_a_killed_runner_ends_its_streams_with_an_error_and_is_replaced(daemon: Daemon) -> None:
    stream = daemon.lines("/api/generate", {"model": "slow", "prompt": "hello"})
    assert not next(stream)["done"]
    (runner,) = daemon.runners()
    runner.kill()
    killed = time.monotonic()
    rest = list(stream)
    assert time.monotonic() - killed < 1
    assert "SIGKILL" in rest[-1]["error"]
    assert all("error" not in line for line in rest[:-1])
    assert ask(daemon)["response"], "the next request gets a fresh runner"
    assert [r.pid for r in daemon.runners()] != [runner.pid]
    assert not psutil.pid_exists(runner.pid)


def test_a_crash_in_the_engine_is_reported_before_and_after_the_first_token(
    daemon: Daemon, tmp_path: Path
) -> None:
    write(tmp_path / "early.gguf", Behaviour(fault="crash", fault_step=1))
    daemon.create("early", tmp_path / "early.gguf")
    status, message = refusal(daemon, "/api/generate", {"model": "early", "prompt": "x"})
    assert status == 500
    assert "SIGKILL" in message


def test_a_killed_daemon_takes_its_runners_along(daemon: Daemon) -> None:
    stream = daemon.lines("/api/generate", {"model": "slow", "prompt": "hello"})
    next(stream)
    (runner,) = daemon.runners()
    daemon.process.kill()
    daemon.process.wait()
    assert wait_until(lambda: not psutil.pid_exists(runner.pid), 2), "a runner outlived its daemon"


def test_a_stopped_daemon_lets_a_running_answer_finish(daemon: Daemon) -> None:
    body = {"model": "slow", "prompt": "hello", "options": {"num_predict": 40}}
    stream = daemon.lines("/api/generate", body)
    next(stream)
    daemon.process.send_signal(signal.SIGTERM)
    assert list(stream)[-1]["done"]
    assert daemon.process.wait(10) == 0


def test_a_client_that_goes_away_frees_its_slot(daemon: Daemon) -> None:
    request = urllib.request.Request(
        f"{daemon.url}/api/generate", json.dumps({"model": "slow", "prompt": "long"}).encode()
    )
    reply = urllib.request.urlopen(request, timeout=10)
    reply.readline()
    reply.close()
    body = {"model": "slow", "prompt": "", "keep_alive": 0}
    daemon.call("/api/generate", body)  # unloads when idle: only if the slot was freed
    assert wait_until(lambda: not daemon.runners(), 3)


def test_a_load_that_fails_says_why_and_hurts_nobody(daemon: Daemon, tmp_path: Path) -> None:
    write(tmp_path / "bad.gguf", Behaviour(fault="load"))
    daemon.create("bad", tmp_path / "bad.gguf")
    status, message = refusal(daemon, "/api/generate", {"model": "bad", "prompt": "x"})
    assert status == 500
    assert "a fault in load was asked for" in message
    assert ask(daemon)["response"]


@pytest.mark.parametrize("backend", ["llamacpp", "pytorch"])
def test_a_model_larger_than_memory_is_refused_in_numbers(
    tmp_path: Path, smollm2: Path, backend: str
) -> None:
    """A model trained, it says, for a billion tokens of context, and a request for all of them."""
    changed_copy(smollm2, tmp_path / "huge.gguf", {"llama.context_length": 1 << 30})
    with running(tmp_path / "models", LHAMA_BACKEND=backend) as daemon:
        daemon.create("huge", tmp_path / "huge.gguf")
        body = {"model": "huge", "prompt": "x", "options": {"num_ctx": 1 << 30}}
        status, message = refusal(daemon, "/api/generate", body)
        assert status == 500
        assert "memory" in message
        assert len(re.findall(r"[0-9]+", message)) >= 2, "what is needed and what there is"
        assert ask(daemon, "huge")["response"], "in a small context it runs"


def test_forged_files_are_refused_and_never_listed(daemon: Daemon, tmp_path: Path) -> None:
    real = (tmp_path / "slow.gguf").read_bytes()
    forged = {
        "random": os.urandom(4096),
        "truncated": real[: len(real) // 2],
        "counts": real[:8] + struct.pack("<QQ", 1 << 60, 1 << 60) + real[24:],
        "empty": b"",
    }
    before = daemon.call("/api/tags")
    for name, data in forged.items():
        path = tmp_path / f"{name}.gguf"
        path.write_bytes(data)
        with pytest.raises(urllib.error.HTTPError) as refused:
            daemon.create(name, path)
        assert refused.value.code in (400, 500), name
        assert json.loads(refused.value.read())["error"], name
    assert daemon.call("/api/tags") == before
    assert ask(daemon)["response"]


def test_an_architecture_nobody_knows_is_named(daemon: Daemon, tmp_path: Path) -> None:
    path = tmp_path / "alien.gguf"
    gguf.write(path, {"general.architecture": "alien"}, {"x": ((32,), "F32", bytes(128))})
    daemon.create("alien", path)
    status, message = refusal(daemon, "/api/generate", {"model": "alien", "prompt": "x"})
    assert status == 500
    assert "alien" in message
    assert "llamacpp" in message


@pytest.mark.parametrize("name", ["../../etc/passwd", "a/../b", "..", "x:..", "a\\..\\b", "a\x00b"])
def test_names_that_climb_are_refused(daemon: Daemon, name: str) -> None:
    assert refusal(daemon, "/api/show", {"model": name})[0] in (400, 404)
    assert refusal(daemon, "/api/generate", {"model": name})[0] in (400, 404)
    assert refusal(daemon, "/api/delete", {"model": name}, "DELETE")[0] in (400, 404)
    assert refusal(daemon, "/api/copy", {"source": "slow", "destination": name})[0] == 400


def test_digests_that_are_none_are_refused(daemon: Daemon) -> None:
    for digest in ("sha256:../../x", "sha256:" + "0" * 63, "md5:" + "0" * 32, "nonsense"):
        body = {"model": "m", "files": {"m.gguf": digest}, "stream": False}
        status, message = refusal(daemon, "/api/create", body)
        assert status in (400, 500), digest
        assert message == "invalid digest format", digest


def test_a_template_that_loops_ends_that_request(daemon: Daemon) -> None:
    bomb = '{{ range .Messages }}{{ printf "%1000000000d" 1 }}{{ end }}{{ .Response }}'
    daemon.call("/api/create", {"model": "bomb", "from": "slow", "template": bomb, "stream": False})
    started = time.monotonic()
    body = {"model": "bomb", "messages": [{"role": "user", "content": "x"}]}
    status, message = refusal(daemon, "/api/chat", body)
    assert status in (400, 500)
    assert "template" in message
    assert time.monotonic() - started < 10
    assert ask(daemon)["response"]


def test_a_prompt_of_nothing_hurts_nobody(daemon: Daemon) -> None:
    stream = daemon.lines(
        "/api/generate", {"model": "slow", "prompt": "x", "options": {"num_predict": 60}}
    )
    next(stream)
    body = {"model": "slow", "prompt": "x", "template": "{{ .System }}", "stream": False}
    status, message = refusal(daemon, "/api/generate", body)
    assert status == 400
    assert "empty" in message
    assert list(stream)[-1]["done"]


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
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
            assert "no space left on device" in json.loads(refused.value.read())["error"]
            assert [m["name"] for m in daemon.call("/api/tags")["models"]] == ["small:latest"]
            assert ask(daemon, "small")["response"]
            left = sum(f.stat().st_size for f in (store / "blobs").iterdir())
            assert left < 1 << 20, "the unfinished upload must be removed"
    finally:
        subprocess.run(["umount", str(store)], check=True)


def test_two_daemons_do_not_share_a_store(daemon: Daemon, tmp_path: Path) -> None:
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


def test_a_full_queue_answers_at_once(tmp_path: Path) -> None:
    write(tmp_path / "lazy.gguf", Behaviour(load_us=1_000_000))
    with running(tmp_path / "models", OLLAMA_MAX_QUEUE="2") as daemon:
        daemon.create("lazy", tmp_path / "lazy.gguf")
        outcomes: list[int] = []

        def one() -> None:
            try:
                ask(daemon, "lazy")
                outcomes.append(200)
            except urllib.error.HTTPError as e:
                outcomes.append(e.code)

        threads = [threading.Thread(target=one) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(set(outcomes)) == [200, 503]
        assert outcomes.count(200) >= 2
