"""The daemon as a process: start, port, signals."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import threading
import urllib.request
from pathlib import Path

import pytest
from lhama_testing_daemon import Daemon, running

from lhama.backends.reference import model
from lhama.backends.reference.model import Behaviour
from lhama.daemon import app
from lhama.daemon.config import Settings
from lhama.daemon.listener import CannotListen, bind


def test_a_port_in_use_is_said_in_words() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(CannotListen, match="already in use: is another lhama or ollama"):
            bind(Settings(port=port))


@pytest.mark.parametrize(
    ("host", "problem"),
    [("192.0.2.1", "no address of this machine"), ("no.such.host.invalid", "no such host")],
)
def test_a_host_that_is_not_here(host: str, problem: str) -> None:
    with pytest.raises(CannotListen, match=problem):
        bind(Settings(host=host, port=0))


def test_a_free_port_is_reported(tmp_path: Path) -> None:
    settings = Settings(models=tmp_path, port=0)
    seen: list[Settings] = []

    def ready(bound: Settings) -> None:
        seen.append(bound)
        signal.raise_signal(signal.SIGTERM)

    asyncio.run(app.serve(settings, ready))
    assert seen[0].port > 0


def _slow(daemon: Daemon, folder: Path) -> None:
    file = folder / "slow.gguf"
    model.write(file, Behaviour(compute_us=20_000))
    daemon.create("slow", file)


def test_sigterm_lets_a_stream_finish(tmp_path: Path) -> None:
    with running(tmp_path / "models") as daemon:
        _slow(daemon, tmp_path)
        body = {"model": "slow", "prompt": "x", "options": {"num_predict": 60}}
        lines = daemon.lines("/api/generate", body)
        assert next(lines)["done"] is False
        daemon.process.send_signal(signal.SIGTERM)
        assert list(lines)[-1]["done"] is True
        assert daemon.process.wait(10) == 0


def test_a_second_signal_stops_at_once(tmp_path: Path) -> None:
    with running(tmp_path / "models") as daemon:
        _slow(daemon, tmp_path)
        body = {"model": "slow", "prompt": "x", "options": {"num_predict": 5000}}
        request = urllib.request.Request(
            daemon.url + "/api/generate", json.dumps(body).encode(), method="POST"
        )
        reply = urllib.request.urlopen(request, timeout=30)
        reply.readline()
        runners = daemon.runners()
        assert runners
        daemon.process.send_signal(signal.SIGTERM)
        threading.Event().wait(0.3)
        assert daemon.process.poll() is None
        daemon.process.send_signal(signal.SIGTERM)
        assert daemon.process.wait(5) == 1
        reply.close()
        for runner in runners:
            runner.wait(5)
