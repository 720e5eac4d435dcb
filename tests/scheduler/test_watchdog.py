"""The watchdog's judgement, and a daemon whose runner hangs or stands still."""

from __future__ import annotations

import json
import signal
import urllib.error
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from lhama_testing_daemon import Daemon, running

from lhama.backends.reference.model import Behaviour, write
from lhama.daemon.durations import MINUTE
from lhama.daemon.scheduler.watchdog import PINGS, SILENT, Watchdog
from lhama.daemon.wire.messages import Pong

# ------------------------------------------------------------------------------------ judgement


def ping(watchdog: Watchdog, pong: Pong | None = None, *, requests: bool = True) -> str:
    """One interval: a ping if it is wanted, and its answer."""
    if not watchdog.wants_ping(requests):
        return ""
    verdict = watchdog.pinged()
    if pong is not None:
        watchdog.heard()
        watchdog.answered(pong)
    return verdict


def test_a_runner_that_makes_progress_is_left_alone() -> None:
    watchdog = Watchdog(5 * MINUTE)
    assert watchdog.interval == 30
    assert not any(ping(watchdog, Pong(0, step, 3)) for step in range(100))


def test_a_runner_without_progress_is_stuck() -> None:
    watchdog = Watchdog(5 * MINUTE)
    verdicts = [ping(watchdog, Pong(0, 7, 1)) for _ in range(PINGS + 2)]
    assert not any(verdicts[:-1])
    assert verdicts[-1] == "is stuck: no step was finished for 5m0s"


def test_silence_is_judged_sooner() -> None:
    watchdog = Watchdog(5 * MINUTE)
    assert not ping(watchdog, Pong(0, 7, 1))
    verdicts = [ping(watchdog) for _ in range(SILENT + 1)]
    assert verdicts[:-1] == [""] * SILENT
    assert verdicts[-1] == "has stopped responding: no answer for 1m0s"


def test_a_runner_with_nothing_to_do_is_not_asked() -> None:
    watchdog = Watchdog(MINUTE)
    assert not any(ping(watchdog, requests=False) for _ in range(100))


def test_a_runner_that_works_for_nobody_is_watched_on() -> None:
    """The client of the request it hangs in has gone."""
    watchdog = Watchdog(MINUTE)
    ping(watchdog, Pong(0, 7, 1))
    verdicts = [ping(watchdog, Pong(0, 7, 1), requests=False) for _ in range(PINGS + 1)]
    assert "is stuck" in verdicts[-1]


def test_idle_time_counts_for_nothing() -> None:
    watchdog = Watchdog(MINUTE)
    for _ in range(5):  # each pause starts the count anew
        assert not any(ping(watchdog, Pong(0, 7, 0)) for _ in range(PINGS))
        assert not any(ping(watchdog, requests=False) for _ in range(PINGS))


# ------------------------------------------------------------------------------------- for real


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    """A model whose third step never returns, and one of 20 ms a token. A fifth of the time given is
    more than a busy machine keeps a process from answering."""
    write(tmp_path / "stuck.gguf", Behaviour(fault="hang", fault_step=3))
    write(tmp_path / "slow.gguf", Behaviour(compute_us=20_000))
    with running(tmp_path / "models", LHAMA_STEP_TIMEOUT="4s") as daemon:
        daemon.create("stuck", tmp_path / "stuck.gguf")
        daemon.create("slow", tmp_path / "slow.gguf")
        yield daemon


def ask(daemon: Daemon, model: str, tokens: int) -> str:
    body = {"model": model, "prompt": "hello", "stream": False, "options": {"num_predict": tokens}}
    reply: dict[str, Any] = daemon.call("/api/generate", body)
    text: str = reply["response"]
    return text


@pytest.mark.fault(3)
def test_a_stuck_engine_is_noticed_killed_and_replaced(daemon: Daemon) -> None:
    assert ask(daemon, "stuck", 1)
    (stuck,) = daemon.runners()
    with pytest.raises(urllib.error.HTTPError) as lost:
        ask(daemon, "stuck", 9)
    message = json.loads(lost.value.read())["error"]
    assert lost.value.code == 500
    assert message == "the model runner is stuck: no step was finished for 4s"
    assert not psutil.pid_exists(stuck.pid)
    assert ask(daemon, "stuck", 1), "the next request gets a fresh runner"
    assert ask(daemon, "slow", 1)


def test_a_stuck_engine_ends_a_stream_with_an_error_line(daemon: Daemon) -> None:
    body = {"model": "stuck", "prompt": "hello", "options": {"num_predict": 9}}
    lines = list(daemon.lines("/api/generate", body))
    assert all(not line["done"] for line in lines[:-1])
    assert "is stuck" in lines[-1]["error"]


@pytest.mark.fault(3)
def test_a_stopped_runner_is_noticed(daemon: Daemon) -> None:
    stream = daemon.lines("/api/generate", {"model": "slow", "prompt": "hello"})
    next(stream)
    (runner,) = daemon.runners()
    runner.send_signal(signal.SIGSTOP)
    assert "has stopped responding: no answer for 800ms" in list(stream)[-1]["error"]
    assert not psutil.pid_exists(runner.pid)
    assert ask(daemon, "slow", 2)


def test_a_slow_runner_is_not_taken_for_a_stuck_one(daemon: Daemon) -> None:
    """An answer that takes much longer than a step may."""
    assert len(ask(daemon, "slow", 300)) == 300
