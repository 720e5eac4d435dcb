"""``lhama top``, ``trace`` and ``bench`` against the real daemon."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from lhama_testing_daemon import Daemon, running

from lhama.backends.reference.model import Behaviour, write

Lhama = Callable[..., str]


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    folder = tmp_path_factory.mktemp("observing")
    write(folder / "ref.gguf", Behaviour(prepare_us=300, compute_us=1000))
    with running(folder / "models") as daemon:
        command = [sys.executable, "-m", "lhama.daemon.cli", "import", "ref"]
        environment = {**os.environ, "OLLAMA_HOST": daemon.url}
        subprocess.run([*command, str(folder / "ref.gguf")], env=environment, check=True)
        yield daemon


@pytest.fixture
def lhama(daemon: Daemon, tmp_path: Path) -> Lhama:
    def run(*arguments: str, fails: bool = False) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "lhama.daemon.cli", *arguments],
            env={**os.environ, "OLLAMA_HOST": daemon.url, "COLUMNS": "120"},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=90,
        )
        assert (done.returncode != 0) == fails, done.stderr
        return done.stderr if fails else done.stdout

    return run


def test_bench_compares_the_pipeline_on_and_off(lhama: Lhama, tmp_path: Path) -> None:
    files = ("--json", "out.json", "--chart", "out.svg")
    text = lhama("bench", "ref", "--streams", "1,3", "--tokens", "20", "--rounds", "1", *files)
    assert text.startswith("ref:latest on reference (cpu), 4 slots")
    rows = [line.split() for line in text.splitlines() if line[:1].isdigit()]
    table = [row for row in rows if "%" in row[-1] and row[0] in ("1", "3")]
    assert [row[0] for row in table] == ["1", "3"]
    results = json.loads((tmp_path / "out.json").read_text())
    assert [r["streams"] for r in results] == [1, 3]
    for result in results:
        assert [b["pipeline"] for b in result["blocks"]] == ["on", "off", "off", "on"]
        assert all(b["tokens_per_s"] > 0 and b["first_ms"] > 0 for b in result["blocks"])
    assert "3 streams" in _words(tmp_path / "out.svg")


def test_a_trace_and_its_picture(lhama: Lhama, tmp_path: Path) -> None:
    lhama("run", "ref", "hello")
    text = lhama("trace", "ref", "out.json", "--steps", "20", "--svg", "out.svg")
    assert text.startswith("20 steps, order 'host'")
    events = json.loads((tmp_path / "out.json").read_text())["traceEvents"]
    work = [event for event in events if event["ph"] == "X"]
    assert {e["cat"] for e in work} >= {"prepare", "enqueue", "compute", "commit", "emit"}
    computing = [e for e in work if e["cat"] == "compute"]
    assert len(computing) == 20
    assert {e["tid"] for e in computing}.isdisjoint(e["tid"] for e in work if e["cat"] == "prepare")
    assert all(e["dur"] >= 1000 for e in computing), "the device takes a millisecond"
    ends = [e["ts"] + e["dur"] for e in computing]
    starts = [e["ts"] for e in computing]
    assert all(after >= before for before, after in zip(ends, starts[1:], strict=False))
    assert "device" in _words(tmp_path / "out.svg")


def test_top_shows_a_model_at_work(daemon: Daemon, lhama: Lhama) -> None:
    body = {"model": "ref", "prompt": "x", "options": {"num_predict": 1500}}
    asking = threading.Thread(target=lambda: list(daemon.lines("/api/generate", body)))
    asking.start()
    screen = lhama("top", "--times", "2", "--interval", "0.5")
    asking.join()
    [row] = [line.split() for line in screen.splitlines() if line.startswith("ref:latest")][-1:]
    assert row[-6] == "1/4"
    assert float(row[-4]) == 1.0, "the batch"
    assert int(row[-3]) > 50, "tokens per second"


def test_show_and_ps_say_which_backend_and_why(lhama: Lhama) -> None:
    sections = lhama("show", "ref").split("\n\n")
    [backends] = [part for part in sections if part.startswith("  Backends")]
    first, *others = backends.splitlines()[1:]
    assert first.split(maxsplit=2) == ["reference", "100", "nobody else runs test models"]
    assert {line.split()[0] for line in others} >= {"llamacpp", "pytorch"}
    lhama("run", "ref", "hello")
    assert lhama("ps").splitlines()[-1] == (
        "ref:latest runs on reference, cpu: nobody else runs test models"
    )


def test_files_that_cannot_be_written_are_named(lhama: Lhama) -> None:
    lhama("run", "ref", "hello")
    nowhere = "no/folder/out.json"
    for words in (("trace", "ref", nowhere), ("bench", "ref", "--json", nowhere)):
        shown = lhama(*words, fails=True)
        assert shown.strip() == f"Error: {nowhere}: No such file or directory"


def test_what_cannot_be_shown(lhama: Lhama) -> None:
    assert "not found" in lhama("trace", "nobody", "out.json", fails=True)
    assert "--streams takes numbers" in lhama("bench", "ref", "--streams", "1,x", fails=True)


def _words(svg: Path) -> str:
    return " ".join(ET.parse(svg).getroot().itertext())
