"""Which models are loaded, seen from outside: share, reload, evict, keep alive."""

from __future__ import annotations

import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from lhama_testing_daemon import Daemon, running

from lhama.backends.reference.model import Behaviour, write

ROOMY = """
from dataclasses import replace
from lhama.backends.reference.engine import ReferenceEngine
from lhama.backends.reference.model import read_behaviour
from lhama.backends.reference.plugin import ReferenceBackend
from lhama.plugins import hookimpl
from lhama.plugins.backend import Support

class Roomy(ReferenceBackend):
    name = "roomy"

    def supports(self, model):
        return replace(super().supports(model), score=60, reason="takes less memory")

    def load(self, model, options, progress):
        behaviour = read_behaviour(model.weights)
        return ReferenceEngine(replace(behaviour, memory_context=0), options)

@hookimpl
def lhama_register_backends(register):
    register(Roomy())
"""
"""A second backend for the same models, which memory is always enough for."""


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    """Two models of 5 ms a token; only one may be loaded at a time."""
    with running(tmp_path / "models", OLLAMA_MAX_LOADED_MODELS="1") as daemon:
        for n, name in enumerate(("first", "second")):
            write(tmp_path / f"{name}.gguf", Behaviour(compute_us=5000 + n))
            daemon.create(name, tmp_path / f"{name}.gguf")
        yield daemon


def ask(daemon: Daemon, model: str = "first", tokens: int = 2, **more: Any) -> dict[str, Any]:
    options = {"num_predict": tokens, **more.pop("options", {})}
    body = {"model": model, "prompt": "hello", "stream": False, "options": options, **more}
    reply: dict[str, Any] = daemon.call("/api/generate", body)
    return reply


def loaded(daemon: Daemon) -> list[dict[str, Any]]:
    models: list[dict[str, Any]] = daemon.call("/api/ps")["models"]
    return models


def soon(condition: Callable[[], bool], seconds: float = 3) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()


def test_two_names_of_one_file_share_a_runner(daemon: Daemon) -> None:
    ask(daemon)
    (runner,) = daemon.runners()
    daemon.call("/api/copy", {"source": "first", "destination": "alias"})
    ask(daemon, "alias")
    assert [r.pid for r in daemon.runners()] == [runner.pid]
    assert [m["name"] for m in loaded(daemon)] == ["first:latest"]


def test_other_options_reload_and_sampling_does_not(daemon: Daemon) -> None:
    ask(daemon, options={"num_ctx": 512})
    (before,) = daemon.runners()
    ask(daemon, options={"num_ctx": 512, "temperature": 1.5, "seed": 3, "stop": ["q"]})
    assert [r.pid for r in daemon.runners()] == [before.pid]
    assert loaded(daemon)[0]["context_length"] == 512
    ask(daemon, options={"num_ctx": 1024})
    assert [r.pid for r in daemon.runners()] != [before.pid]
    assert loaded(daemon)[0]["context_length"] == 1024


def test_a_reload_waits_for_the_answer_that_runs(daemon: Daemon) -> None:
    body = {"model": "first", "prompt": "x", "options": {"num_predict": 60, "num_ctx": 512}}
    stream = daemon.lines("/api/generate", body)
    next(stream)
    other = threading.Thread(target=ask, args=(daemon,), kwargs={"options": {"num_ctx": 1024}})
    other.start()
    rest = list(stream)
    other.join()
    assert rest[-1]["done"]
    assert rest[-1]["eval_count"] == 60
    assert loaded(daemon)[0]["context_length"] == 1024


def test_an_idle_model_is_evicted_and_a_busy_one_waited_for(daemon: Daemon) -> None:
    ask(daemon)
    ask(daemon, "second")
    assert [m["name"] for m in loaded(daemon)] == ["second:latest"]
    stream = daemon.lines(
        "/api/generate", {"model": "second", "prompt": "x", "options": {"num_predict": 60}}
    )
    next(stream)
    other = threading.Thread(target=ask, args=(daemon,))
    other.start()
    assert list(stream)[-1]["eval_count"] == 60
    other.join()
    assert [m["name"] for m in loaded(daemon)] == ["first:latest"]
    assert len(daemon.runners()) == 1


def test_keep_alive_ends_and_sticks(daemon: Daemon) -> None:
    ask(daemon, keep_alive=-1)
    assert loaded(daemon)[0]["expires_at"] > "2300"
    ask(daemon)
    assert loaded(daemon)[0]["expires_at"] > "2300", "it stays what the last request said"
    ask(daemon, keep_alive="200ms")
    assert soon(lambda: not daemon.runners())
    assert soon(lambda: loaded(daemon) == []), "listed until its process is reaped, no longer"
    ask(daemon)
    daemon.call("/api/generate", {"model": "first", "keep_alive": 0})
    assert soon(lambda: not daemon.runners())


def test_many_first_requests_load_once(daemon: Daemon) -> None:
    replies: list[dict[str, Any]] = []
    threads = [
        threading.Thread(
            target=lambda: replies.append(ask(daemon, tokens=20, options={"temperature": 0}))
        )
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(replies) == 8
    assert len({reply["response"] for reply in replies}) == 1
    assert len(daemon.runners()) == 1


@pytest.mark.fault(10)
def test_a_client_that_leaves_the_queue_leaves_nothing_behind(
    tmp_path: Path,
) -> None:
    write(tmp_path / "lazy.gguf", Behaviour(load_us=800_000))
    with running(tmp_path / "models") as daemon:
        daemon.create("lazy", tmp_path / "lazy.gguf")
        body = json.dumps({"model": "lazy", "prompt": "x"}).encode()
        for _ in range(3):
            request = urllib.request.Request(f"{daemon.url}/api/generate", body)
            with pytest.raises(TimeoutError):
                urllib.request.urlopen(request, timeout=0.2)
        assert ask(daemon, "lazy", keep_alive=0)["response"]
        assert soon(lambda: not daemon.runners()), "a lease of a client long gone holds the model"


def test_a_backend_that_runs_out_of_memory_is_passed_over(tmp_path: Path) -> None:
    info = tmp_path / "site" / "lhama_roomy-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: lhama-roomy\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[lhama]\nroomy = lhama_roomy\n")
    (info.parent / "lhama_roomy.py").write_text(ROOMY)
    with running(tmp_path / "models", PYTHONPATH=str(info.parent)) as daemon:
        write(tmp_path / "tight.gguf", Behaviour(memory_context=8))
        daemon.create("tight", tmp_path / "tight.gguf")
        assert ask(daemon, "tight")["eval_count"] == 2
        [line] = daemon.call("/api/lhama/pipelines")["models"]
        assert line["backend"] == "roomy"
        assert line["reason"].startswith("reference ran out of memory: a context of ")
        assert line["reason"].endswith("; takes less memory")
    with running(
        tmp_path / "models", PYTHONPATH=str(info.parent), LHAMA_BACKEND="reference"
    ) as daemon:
        with pytest.raises(urllib.error.HTTPError) as refused:
            ask(daemon, "tight")
        assert "was made not to fit" in json.loads(refused.value.read())["error"]
        assert not loaded(daemon)
