"""A runner dies, hangs, or finds no memory."""

from __future__ import annotations

import json
import re
import signal
import threading
import urllib.error
import urllib.request
from pathlib import Path

import psutil
import pytest
from lhama_testing_daemon import Daemon, running
from lhama_testing_faults import Stream, ask, gone, refusal, wait_until
from lhama_testing_models import changed_copy

from lhama.backends.reference.model import Behaviour, write
from lhama.plugins import gguf


def metrics(daemon: Daemon) -> str:
    with urllib.request.urlopen(f"{daemon.url}/metrics", timeout=30) as reply:
        return str(reply.read().decode())


@pytest.mark.fault(1, 2)
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_dead_runner_ends_its_streams_and_nobody_elses(
    daemon: Daemon, tmp_path: Path, number: signal.Signals
) -> None:
    write(tmp_path / "other.gguf", Behaviour(compute_us=20_001))
    daemon.create("other", tmp_path / "other.gguf")
    other = Stream(daemon, "/api/generate", {"model": "other", "prompt": "x"})
    other.begin()
    (bystander,) = daemon.runners()
    stream = Stream(daemon, "/api/generate", {"model": "slow", "prompt": "hello"})
    assert not stream.begin()["done"]
    (runner,) = [r for r in daemon.runners() if r != bystander]
    runner.send_signal(number)
    rest = stream.rest()
    assert number.name in rest[-1]["error"]
    assert all("error" not in line for line in rest[:-1])
    assert not other.line()["done"], "the other model answers on"
    assert ask(daemon)["response"], "the next request gets a fresh runner"
    assert bystander in daemon.runners()
    assert gone(runner)
    assert f'lhama_runners_lost_total{{cause="{number.name}"}} 1.0' in metrics(daemon)
    other.leave()


@pytest.mark.fault(1)
def test_a_crash_before_the_first_token_has_its_status(daemon: Daemon, tmp_path: Path) -> None:
    write(tmp_path / "early.gguf", Behaviour(fault="crash", fault_step=1))
    daemon.create("early", tmp_path / "early.gguf")
    status, message = refusal(daemon, "/api/generate", {"model": "early", "prompt": "x"})
    assert status == 500
    assert "SIGKILL" in message


@pytest.mark.fault(36)
def test_an_engine_that_is_lost_takes_its_runner_along(daemon: Daemon, tmp_path: Path) -> None:
    write(tmp_path / "lost.gguf", Behaviour(fault="lost", fault_step=20, compute_us=50_000))
    daemon.create("lost", tmp_path / "lost.gguf")
    stream = Stream(daemon, "/api/generate", {"model": "lost", "prompt": "hello"})
    assert not stream.begin()["done"]
    (runner,) = daemon.runners()
    error = stream.rest()[-1]["error"]
    assert "exit status 1: the end of the engine was asked for at step 20" in error
    assert gone(runner)
    assert ask(daemon, "lost", 1)["done"], "the next request gets a fresh runner"
    write(tmp_path / "vectors.gguf", Behaviour(fault="lost", fault_step=1, pooling=1))
    daemon.create("vectors", tmp_path / "vectors.gguf")
    _, message = refusal(daemon, "/api/embed", {"model": "vectors", "input": "x"})
    assert "the end of the engine was asked for at step 1" in message


@pytest.mark.fault(3)
def test_readiness_shows_a_hang_before_the_runner_is_replaced(tmp_path: Path) -> None:
    write(tmp_path / "stuck.gguf", Behaviour(fault="hang", fault_step=3))
    with running(tmp_path / "models", LHAMA_STEP_TIMEOUT="4s") as daemon:
        daemon.create("stuck", tmp_path / "stuck.gguf")
        stream = Stream(daemon, "/api/generate", {"model": "stuck", "prompt": "hello"})
        stream.begin()
        reasons: list[str] = []

        def doubted() -> bool:
            try:
                daemon.call("/health/ready")
            except urllib.error.HTTPError as refused:
                with refused:
                    reasons.extend(json.loads(refused.read())["reasons"])
            return bool(reasons)

        assert wait_until(doubted)
        assert re.fullmatch(r"the runner of stuck:latest finishes no step: .*", reasons[0])
        assert "is stuck" in stream.rest()[-1]["error"]
        assert 'lhama_runners_lost_total{cause="stuck"} 1.0' in metrics(daemon)
        assert daemon.call("/health/ready") == {"status": "ready"}


@pytest.mark.fault(7)
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


@pytest.mark.fault(9)
def test_a_step_that_fails_ends_its_answers_and_frees_their_slots(
    daemon: Daemon, tmp_path: Path
) -> None:
    write(tmp_path / "failing.gguf", Behaviour(fault="compute", fault_step=3))
    daemon.create("failing", tmp_path / "failing.gguf")
    stream = Stream(daemon, "/api/generate", {"model": "failing", "prompt": "hello"})
    assert not stream.begin()["done"]
    (runner,) = daemon.runners()
    assert "a fault in compute was asked for at step 3" in stream.rest()[-1]["error"]
    assert ask(daemon, "failing")["response"]
    assert daemon.runners() == [runner], "the runner lives on"


@pytest.mark.fault(9)
def test_a_runner_that_gets_no_more_memory(tmp_path: Path, smollm2: Path) -> None:
    """Under its answers; llama.cpp has what it needs from its load on, so it may well go on."""
    with running(tmp_path / "models", LHAMA_BACKEND="llamacpp") as daemon:
        daemon.create("real", smollm2)
        body = {"model": "real", "prompt": "Tell a story", "options": {"num_predict": 40}}
        stream = Stream(daemon, "/api/generate", body)
        lines = [stream.begin()]
        (runner,) = daemon.runners()
        size = runner.memory_info().vms
        runner.rlimit(psutil.RLIMIT_AS, (size, size))
        late = Stream(daemon, "/api/generate", body | {"prompt": "word " * 800})
        for ended in ([late.begin(), *late.rest()], [*lines, *stream.rest()]):
            assert ended[-1].get("done") or ended[-1]["error"]
        assert ask(daemon, "real")["done"], "whatever became of the runner"


@pytest.mark.fault(15)
def test_a_load_that_stalls_is_given_up_and_its_process_reaped(tmp_path: Path) -> None:
    write(tmp_path / "never.gguf", Behaviour(load_us=600_000_000))
    write(tmp_path / "quick.gguf")
    with running(tmp_path / "models", OLLAMA_LOAD_TIMEOUT="3s") as daemon:
        daemon.create("never", tmp_path / "never.gguf")
        daemon.create("quick", tmp_path / "quick.gguf")
        status, message = refusal(daemon, "/api/generate", {"model": "never", "prompt": "x"})
        assert status == 500
        assert "timed out waiting for the runner to load" in message
        assert wait_until(lambda: not daemon.runners())
        assert ask(daemon, "quick")["response"]


@pytest.mark.fault(16)
def test_models_that_leave_at_once_and_many_who_want_them(daemon: Daemon, tmp_path: Path) -> None:
    """Every request unloads what it used; sixteen come at a time."""
    write(tmp_path / "quick.gguf")
    daemon.create("quick", tmp_path / "quick.gguf")
    answers: list[str] = []

    def one() -> None:
        answers.append(ask(daemon, "quick", keep_alive=0)["response"])

    threads = [threading.Thread(target=one) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 16
    assert all(answers)
    assert wait_until(lambda: daemon.call("/api/ps") == {"models": []})
    assert wait_until(lambda: not daemon.runners())


def test_a_load_that_fails_says_why_and_hurts_nobody(daemon: Daemon, tmp_path: Path) -> None:
    write(tmp_path / "bad.gguf", Behaviour(fault="load"))
    daemon.create("bad", tmp_path / "bad.gguf")
    status, message = refusal(daemon, "/api/generate", {"model": "bad", "prompt": "x"})
    assert status == 500
    assert "a fault in load was asked for" in message
    assert ask(daemon)["response"]


def test_an_architecture_nobody_knows_is_named(daemon: Daemon, tmp_path: Path) -> None:
    path = tmp_path / "alien.gguf"
    gguf.write(path, {"general.architecture": "alien"}, {"x": ((32,), "F32", bytes(128))})
    daemon.create("alien", path)
    status, message = refusal(daemon, "/api/generate", {"model": "alien", "prompt": "x"})
    assert status == 500
    assert "alien" in message
    assert "llamacpp" in message


def test_a_prompt_of_nothing_hurts_nobody(daemon: Daemon) -> None:
    body = {"model": "slow", "prompt": "x", "options": {"num_predict": 60}}
    stream = Stream(daemon, "/api/generate", body)
    stream.begin()
    body = {"model": "slow", "prompt": "x", "template": "{{ .System }}", "stream": False}
    status, message = refusal(daemon, "/api/generate", body)
    assert status == 400
    assert "empty" in message
    assert stream.rest()[-1]["done"]
