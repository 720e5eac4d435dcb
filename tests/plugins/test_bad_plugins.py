"""Bad plugins in front of a real daemon: it starts, says what is wrong with each, and serves on."""

from __future__ import annotations

import json
import urllib.error
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from lhama_testing_daemon import Daemon, running
from lhama_testing_environment import Environment
from lhama_testing_traps import tiny_model

from lhama.backends.reference.model import write
from lhama.plugins import gguf

pytestmark = pytest.mark.timeout(400)

BACKEND = """
import time
from lhama.plugins import hookimpl
from lhama.plugins.backend import *

class Backend:
    name, api_version = "{name}", 1
    def probe(self):
        return Probe((Device("cpu", "cpu", "here", 0, 0),))
    def supports(self, model):
        return Support(0, "supports nothing")
    def estimate(self, model, options):
        return MemoryEstimate(0, 0, 0)
    def load(self, model, options, progress):
        raise NotImplementedError

@hookimpl
def lhama_register_backends(register):
    register(Backend())
"""

BAD = {
    "raises": ("raise ValueError('not today')", "ValueError: not today"),
    "exits": ("raise SystemExit(3)", "SystemExit: 3"),
    "ends": ("import os; os._exit(0)", "loading it ended the process with status 0"),
    "crashes": (
        "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)",
        "loading it ended the process by SIGSEGV",
    ),
    "sleeps": ("import time; time.sleep(10_000)", "it did not load within 10 s"),
    "misspelt": (
        "from lhama.plugins import hookimpl\n@hookimpl\ndef lhama_register_backend(register): pass",
        "unknown hook lhama_register_backend, did you mean lhama_register_backends?",
    ),
    "undated": ("Backend.api_version = None", "backend 'undated' has no api_version"),
    "future": (
        "Backend.api_version = 99",
        "backend 'future' was written for version 99 of the plugin",
    ),
    "blind": ("Backend.probe = lambda self: 1 / 0", "probe failed: ZeroDivisionError"),
    "mute": ("Backend.probe = lambda self: time.sleep(10_000)", "probe gave no answer within 10 s"),
    "vague": ("Backend.probe = lambda self: None", "probe gave NoneType, not Probe"),
}
"""Plugins by name: what they do, and what ``lhama plugins`` says of it."""

NEEDS_BACKEND = ("undated", "future", "blind", "mute", "vague")

LIAR = (
    BACKEND
    + """
from lhama.plugins import gguf

class Liar(Backend):
    def lie(self, model):
        return gguf.read(model.weights).get_str("liar.lie")
    def supports(self, model):
        lie = self.lie(model)
        return "yes" if lie == "support" else Support(101 if lie else 0, "tells no truth")
    def estimate(self, model, options):
        if self.lie(model) == "fussy":
            raise BackendError("not with a cache of this type")
        return None if self.lie(model) == "estimate" else MemoryEstimate(0, 0, 0)
    def load(self, model, options, progress):
        from liar_engines import load
        return load(self.lie(model), options)

Backend = Liar
"""
)

ENGINES = """
import dataclasses
from lhama.backends.reference.engine import ReferenceEngine
from lhama.backends.reference.model import Behaviour
from lhama.plugins.backend import StepResult

class Engine(ReferenceEngine):
    def __init__(self, options, **behaviour):
        super().__init__(Behaviour(**behaviour), options)

class Silent(Engine):
    def _step(self, handle):
        super()._step(handle)
        return StepResult(())

class Nothing(Engine):
    def _step(self, handle):
        return NotImplemented

class Beyond(Engine):
    def _sample(self, row, mask):
        return dataclasses.replace(super()._sample(row, mask), token=1_000_000)

class Wordy(Engine):
    def _sample(self, row, mask):
        return dataclasses.replace(super()._sample(row, mask), token="word")

class Timeless(Engine):
    def _step(self, handle):
        return dataclasses.replace(super()._step(handle), compute_ns=None)

class Few(Engine):
    def _embed(self, work):
        return []

class Lists(Engine):
    def _embed(self, work):
        return [[0.1, 0.2] for _ in work.inputs]

def load(lie, options):
    if lie == "load":
        return None
    kinds = {k.__name__.lower(): k for k in (Silent, Nothing, Beyond, Wordy, Timeless)}
    if lie in kinds:
        return kinds[lie](options)
    return {"few": Few, "lists": Lists}[lie](options, pooling=1)
"""


def install(environment: Environment, name: str, source: str) -> None:
    """A distribution as pip would leave it."""
    module = f"lhama_bad_{name}"
    (environment.packages / f"{module}.py").write_text(source)
    info = environment.packages / f"{module}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: lhama-{name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[lhama]\n{name} = {module}\n")


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    environment = Environment(tmp_path_factory.mktemp("bad") / "environment")
    for name, (source, _) in BAD.items():
        backend = BACKEND.format(name=name) if name in NEEDS_BACKEND else ""
        install(environment, name, backend + source)
    install(environment, "liar", LIAR.replace("{name}", "liar"))
    (environment.packages / "liar_engines.py").write_text(dedent(ENGINES))
    return environment


@pytest.fixture(scope="module")
def daemon(environment: Environment, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    folder = tmp_path_factory.mktemp("serves")
    with running(folder / "models", python=environment.python) as daemon:
        write(folder / "honest.gguf")
        daemon.create("honest", folder / "honest.gguf")
        yield daemon


@pytest.fixture(scope="module")
def listed(environment: Environment) -> str:
    return environment.lhama("plugins")


@pytest.mark.parametrize("name", BAD)
def test_it_is_listed_with_what_is_wrong(listed: str, name: str) -> None:
    assert f"{name}: {BAD[name][1]}" in listed


def test_good_ones_are_listed_as_ever(listed: str) -> None:
    assert [line.split()[-1] for line in listed.splitlines() if line.startswith("reference ")] == [
        "loaded"
    ]


def chat(daemon: Daemon, model: str) -> dict[str, Any]:
    body = {
        "model": model,
        "messages": [{"role": "user", "content": "hello"}],
        "stream": False,
        "options": {"num_predict": 4},
    }
    reply: dict[str, Any] = daemon.call("/api/chat", body)
    return reply


def error(daemon: Daemon, path: str, **body: Any) -> str:
    with pytest.raises(urllib.error.HTTPError) as caught:
        daemon.call(path, body)
    assert caught.value.code == 500
    return str(json.load(caught.value)["error"])


def test_the_daemon_serves_among_them(daemon: Daemon) -> None:
    assert chat(daemon, "honest")["eval_count"] == 4


def test_tools_work_among_them(daemon: Daemon, tmp_path: Path) -> None:
    """A model is copied by llama.cpp, in a process that has no bad plugin."""
    pytest.importorskip("llama_cpp")
    daemon.create("copied", tiny_model(tmp_path))
    assert "copied:latest" in {m["name"] for m in daemon.call("/api/tags")["models"]}


def contested(daemon: Daemon, folder: Path, name: str, lie: str) -> None:
    """Make a model that the liar wants most, and that the reference backend runs as well."""
    metadata: dict[str, str | int] = {
        "general.architecture": "reference",
        "reference.context_length": 256,
        "reference.embedding_length": 8,
        "liar.lie": lie,
    }
    path = folder / f"{name}.gguf"
    gguf.write(path, metadata, {"token_embd.weight": ((8, 4), "F32", bytes(8 * 4 * 4))})
    daemon.create(name, path)


def test_what_a_backend_refuses_in_words_is_told(daemon: Daemon, tmp_path: Path) -> None:
    """It may be the user's error: another backend would hide it."""
    contested(daemon, tmp_path, "refused", "fussy")
    said = error(daemon, "/api/generate", model="refused", prompt="hello", stream=False)
    assert said == "unable to load model: not with a cache of this type"


def test_who_cannot_estimate_is_passed_over(daemon: Daemon, tmp_path: Path) -> None:
    contested(daemon, tmp_path, "other", "estimate")
    assert chat(daemon, "other")["eval_count"] == 4
    lines = daemon.call("/api/lhama/pipelines")["models"]
    [line] = [line for line in lines if line["model"] == "other:latest"]
    assert line["backend"] == "reference"
    assert line["reason"].startswith("liar: estimate gave NoneType, not MemoryEstimate; ")


LIES = {
    "support": "liar: supports gave str, not Support",
    "estimate": "estimate gave NoneType, not MemoryEstimate",
    "load": "load gave NoneType, which is no engine: it lacks limits, residency, tokenizer, ",
    "silent": "gave no result for this request's row",
    "nothing": "'NotImplementedType' object has no attribute 'rows'",
    "beyond": "gave a token that is not in its vocabulary",
    "wordy": "'int' and 'str'",
    "timeless": "NoneType",
    "few": "no vector of bytes for each of 1 texts",
    "lists": "no vector of bytes for each of 1 texts",
}
"""What a backend lies about, and what the client is told."""


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_ends_its_request_and_nothing_else(daemon: Daemon, tmp_path: Path, lie: str) -> None:
    embeds = lie in ("few", "lists")
    metadata: dict[str, str | int] = {
        "general.architecture": "liar",
        "liar.lie": lie,
        "liar.context_length": 256,
        "liar.embedding_length": 8,
        **({"liar.pooling_type": 1} if embeds else {}),
    }
    path = tmp_path / f"{lie}.gguf"
    gguf.write(path, metadata, {"token_embd.weight": ((8, 4), "F32", bytes(8 * 4 * 4))})
    daemon.create(lie, path)
    for _ in range(2):  # what it did to the first request is not the second one's trouble
        if embeds:
            said = error(daemon, "/api/embed", model=lie, input="hello")
        else:
            said = error(
                daemon,
                "/api/generate",
                model=lie,
                prompt="hello",
                stream=False,
                options={"num_predict": 4},
            )
        assert LIES[lie] in said
    assert chat(daemon, "honest")["eval_count"] == 4
