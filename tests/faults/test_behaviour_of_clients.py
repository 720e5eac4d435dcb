"""Clients that leave, do not read, come in thousands, or send what nobody should."""

from __future__ import annotations

import contextlib
import json
import resource
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from lhama_testing_daemon import Daemon, running
from lhama_testing_faults import SLOW, Stream, ask, refusal, wait_until

from lhama.backends.reference.model import Behaviour, write

BATCH = 512


@contextlib.contextmanager
def serving(folder: Path, behaviour: Behaviour, **environment: str) -> Iterator[Daemon]:
    write(folder / "model.gguf", behaviour, context=32_768)
    with running(folder / "models", **environment) as daemon:
        daemon.create("model", folder / "model.gguf")
        yield daemon


def counters(daemon: Daemon) -> dict[str, Any]:
    """What the one loaded model's assembly line does and has done; without one, nothing."""
    lines: list[dict[str, Any]] = daemon.call("/api/lhama/pipelines")["models"]
    return lines[0] if lines else {"running": 0, "waiting": 0, "counters": {"prompt_tokens": 0}}


def request(model: str = "model", prompt: str = "x", tokens: int = 5000) -> dict[str, Any]:
    return {"model": model, "prompt": prompt, "raw": True, "options": {"num_predict": tokens}}


@pytest.mark.fault(10)
def test_who_leaves_while_waiting_for_a_slot_is_never_computed(tmp_path: Path) -> None:
    with serving(tmp_path, SLOW, OLLAMA_NUM_PARALLEL="1") as daemon:
        first = Stream(daemon, "/api/generate", request(prompt="a" * 10))
        first.begin()
        waiting = [
            Stream(daemon, "/api/generate", request(prompt=chr(98 + n) * 100)) for n in range(3)
        ]
        assert wait_until(lambda: counters(daemon)["waiting"] == 3)
        for stream in waiting:
            stream.leave()
        assert wait_until(lambda: counters(daemon)["waiting"] == 0)
        first.leave()
        ask(daemon, "model", raw=True, prompt="z" * 10)
        assert counters(daemon)["counters"]["prompt_tokens"] <= 20


@pytest.mark.fault(11)
def test_who_leaves_during_a_long_prompt_stops_it_within_a_batch(tmp_path: Path) -> None:
    with serving(tmp_path, Behaviour(row_us=500), OLLAMA_CONTEXT_LENGTH="32768") as daemon:
        ask(daemon, "model", tokens=1)
        before = counters(daemon)["counters"]["prompt_tokens"]
        stream = Stream(daemon, "/api/generate", request(prompt="long " * 6000))
        assert wait_until(lambda: counters(daemon)["counters"]["prompt_tokens"] > before)
        stream.leave()
        assert wait_until(lambda: counters(daemon)["running"] == 0)
        done = counters(daemon)["counters"]["prompt_tokens"]
        assert done < before + 30_000, "it was not computed to its end"
        ask(daemon, "model", tokens=1)
        assert counters(daemon)["counters"]["prompt_tokens"] <= done + BATCH + 100


@pytest.mark.fault(12)
@pytest.mark.parametrize("streaming", [True, False])
def test_who_leaves_during_an_answer_frees_its_slot(daemon: Daemon, streaming: bool) -> None:
    stream = Stream(daemon, "/api/generate", request("slow") | {"stream": streaming})
    if streaming:
        stream.begin()
    assert wait_until(lambda: counters(daemon)["running"] == 1)
    stream.leave()
    assert wait_until(lambda: counters(daemon)["running"] == 0)
    # Unloaded when idle: only if nothing holds it.
    daemon.call("/api/generate", {"model": "slow", "prompt": "", "keep_alive": 0})
    assert wait_until(lambda: not daemon.runners())


@pytest.mark.fault(13)
def test_who_does_not_read_is_hung_up_on_and_nobody_waits_for_it(tmp_path: Path) -> None:
    """An answer of many megabytes that nobody takes, and one beside it that somebody does."""
    with serving(tmp_path, Behaviour(), OLLAMA_CONTEXT_LENGTH="32768") as daemon:
        lazy = socket.socket()
        lazy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        lazy.connect(("127.0.0.1", daemon.port))
        # Log-probabilities fill the kernel's buffers in few tokens.
        body = json.dumps(request(tokens=320_000) | {"logprobs": True, "top_logprobs": 20}).encode()
        head = f"POST /api/generate HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}"
        lazy.sendall(head.encode() + b"\r\n\r\n" + body)
        assert wait_until(lambda: counters(daemon)["running"] == 1)
        before = psutil.Process(daemon.process.pid).memory_info().rss
        assert len(ask(daemon, "model", tokens=50)["response"]) == 50
        assert wait_until(lambda: counters(daemon)["running"] == 0, 90)
        assert counters(daemon)["counters"]["tokens"] < 320_000, "it was not generated to its end"
        grown = psutil.Process(daemon.process.pid).memory_info().rss - before
        assert grown < 48 << 20
        lazy.close()


@pytest.mark.fault(14)
def test_a_flood_is_served_or_refused_and_never_cut(tmp_path: Path) -> None:
    with serving(tmp_path, Behaviour(load_us=1_500_000), OLLAMA_MAX_QUEUE="16") as daemon:
        outcomes: list[int] = []
        refusals: set[tuple[str | None, str]] = set()

        def one() -> None:
            try:
                ask(daemon, "model")
                outcomes.append(200)
            except urllib.error.HTTPError as refused:
                with refused:
                    error = json.loads(refused.read())["error"]
                refusals.add((refused.headers["Retry-After"], error[:11]))
                outcomes.append(refused.code)

        threads = [threading.Thread(target=one) for _ in range(100)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(outcomes) == 100
        assert set(outcomes) == {200, 503}
        assert refusals == {("1", "server busy")}
        assert outcomes.count(200) >= 16


@pytest.fixture
def many(tmp_path: Path) -> Iterator[int]:
    """As many connections as this process may open, 10,000 at most."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield min(10_000, hard - 1000)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.fault(28)
def test_ten_thousand_idle_connections(daemon: Daemon, many: int) -> None:
    if many < 10_000:
        pytest.skip(f"this process may open {many} connections only")
    with contextlib.ExitStack() as stack:
        for _ in range(many):
            stack.enter_context(socket.create_connection(("127.0.0.1", daemon.port), timeout=30))
        assert ask(daemon)["response"]
        assert psutil.Process(daemon.process.pid).memory_info().rss < 1 << 30
    assert ask(daemon)["response"]


@pytest.mark.fault(30)
def test_descriptors_run_out_and_come_back(daemon: Daemon) -> None:
    assert ask(daemon)["response"]
    process = psutil.Process(daemon.process.pid)
    process.rlimit(psutil.RLIMIT_NOFILE, (128, 20_000))
    with contextlib.ExitStack() as stack:
        for _ in range(80):  # 64 of the 128 are the daemon's own
            stack.enter_context(socket.create_connection(("127.0.0.1", daemon.port), timeout=30))

        status, message = refusal(daemon, "/api/version")
        assert status == 503
        assert "too many connections" in message
        for _ in range(60):  # beyond what can be accepted at all
            stack.enter_context(socket.create_connection(("127.0.0.1", daemon.port), timeout=30))

    def answered() -> bool:
        try:
            return bool(ask(daemon)["response"])
        except (urllib.error.URLError, ConnectionError):
            return False

    assert wait_until(answered, 30)


@pytest.mark.fault(31)
def test_a_body_without_end_is_refused_and_not_kept(daemon: Daemon) -> None:
    process = psutil.Process(daemon.process.pid)
    before = process.memory_info().rss
    with socket.create_connection(("127.0.0.1", daemon.port), timeout=60) as client:
        head = "POST /api/chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10000000000\r\n\r\n"
        client.sendall(head.encode())
        assert client.recv(100).startswith(b"HTTP/1.1 413"), "refused by its length alone"
    with socket.create_connection(("127.0.0.1", daemon.port), timeout=60) as client:
        head = "POST /api/chat HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
        client.sendall(head.encode())
        block = b"100000\r\n" + b" " * (1 << 20) + b"\r\n"
        sent = 0
        with contextlib.suppress(ConnectionError):
            while sent < 1000:
                client.sendall(block)
                sent += 1
                client.settimeout(0.0001)
                with contextlib.suppress(TimeoutError, BlockingIOError):
                    answer = client.recv(4096)
                    break
                client.settimeout(60)
        assert answer.startswith(b"HTTP/1.1 413")
        assert b"application/json" in answer
        assert sent < 300
    assert wait_until(lambda: process.memory_info().rss < before + (64 << 20))
    assert ask(daemon)["response"]


@pytest.mark.fault(32)
@pytest.mark.parametrize("path", ["/api/generate", "/api/chat", "/api/create", "/v1/messages"])
def test_hostile_json_is_refused_in_json(daemon: Daemon, path: str) -> None:
    bodies = [
        b"[" * 100_000,
        b'{"model":' * 50_000,
        b'{"model":NaN}',
        b'{"model":"slow","options":{"temperature":Infinity}}',
        b'{"model":"\\ud800"}',
        b'{"model":"slow\xff"}',
        b"\x00",
        b"null",
        b'{"model":1e999}',
    ]
    for body in bodies:
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(
                urllib.request.Request(daemon.url + path, body), timeout=30
            ).close()
        with refused.value as reply:
            assert 400 <= reply.code < 500, body[:40]
            assert json.loads(reply.read())["error"], body[:40]
    assert ask(daemon)["response"]
