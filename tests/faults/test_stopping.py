"""The daemon is told to stop, or is killed."""

from __future__ import annotations

import http.client
import json
import signal
import urllib.error
from pathlib import Path
from typing import Any

import pytest
from lhama_testing_daemon import Daemon, running
from lhama_testing_faults import SLOW, Stream, gone, refusal, wait_until

from lhama.backends.reference.model import write
from lhama.daemon.store import Store

LONG = {"model": "slow", "prompt": "hello", "options": {"num_predict": 40}}
ENDLESS = {"model": "slow", "prompt": "hello", "options": {"num_predict": 5000}}


def health(daemon: Daemon, kind: str) -> tuple[int, dict[str, Any]]:
    try:
        return 200, daemon.call(f"/health/{kind}")
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code, json.loads(refused.read())


@pytest.mark.fault(4)
def test_a_killed_daemon_takes_its_runners_along(daemon: Daemon) -> None:
    stream = Stream(daemon, "/api/generate", ENDLESS)
    stream.begin()
    (runner,) = daemon.runners()
    daemon.process.kill()
    daemon.process.wait()
    assert wait_until(lambda: gone(runner)), "a runner outlived its daemon"
    with Store(daemon.store) as store:
        (model,) = store.list()
        assert all(map(store.blobs.exists, model.manifest.digests))
    stream.leave()


@pytest.mark.fault(5)
def test_sigterm_lets_streams_finish_and_refuses_what_is_new(daemon: Daemon) -> None:
    streams = [Stream(daemon, "/api/generate", LONG) for _ in range(3)]
    idle = http.client.HTTPConnection("127.0.0.1", daemon.port, timeout=30)
    idle.request("GET", "/api/version")
    idle.getresponse().read()
    for stream in streams:
        assert not stream.begin()["done"]
    assert health(daemon, "ready") == (200, {"status": "ready"})
    daemon.process.send_signal(signal.SIGTERM)
    assert wait_until(lambda: health(daemon, "ready")[0] == 503)
    assert health(daemon, "ready")[1]["reasons"] == ["the server is shutting down"]
    assert health(daemon, "live") == (200, {"status": "live"})
    assert refusal(daemon, "/api/generate", LONG) == (503, "the server is shutting down")
    idle.request("GET", "/api/tags")  # a connection from before is no way around it
    reply = idle.getresponse()
    assert (reply.status, reply.getheader("Retry-After")) == (503, "1")
    assert reply.getheader("Connection") == "close"
    reply.read()
    idle.close()
    for stream in streams:
        last = stream.rest()[-1]
        assert (last["done"], last["eval_count"]) == (True, 40)
    assert daemon.process.wait(10) == 0


@pytest.mark.fault(5)
def test_what_outlasts_the_grace_is_ended_in_words(tmp_path: Path) -> None:
    write(tmp_path / "slow.gguf", SLOW)
    with running(tmp_path / "models", LHAMA_SHUTDOWN_GRACE="200ms") as daemon:
        daemon.create("slow", tmp_path / "slow.gguf")
        stream = Stream(daemon, "/api/generate", ENDLESS)
        stream.begin()
        daemon.process.send_signal(signal.SIGTERM)
        *_, last = stream.rest()
        assert last == {"error": "the server is shutting down"}
        assert daemon.process.wait(10) == 0
        assert "requests are cut off" in daemon.log.read_text()


@pytest.mark.fault(6)
def test_a_second_signal_stops_at_once(daemon: Daemon) -> None:
    stream = Stream(daemon, "/api/generate", ENDLESS)
    stream.begin()
    runners = daemon.runners()
    assert runners
    daemon.process.send_signal(signal.SIGTERM)
    assert wait_until(lambda: health(daemon, "ready")[0] == 503)
    assert daemon.process.poll() is None
    daemon.process.send_signal(signal.SIGTERM)
    assert daemon.process.wait(5) == 1
    assert wait_until(lambda: all(map(gone, runners)))
    stream.leave()
