"""The command line against the real daemon, each verb a process of its own, as users run it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from lhama_testing_daemon import Daemon, running
from lhama_testing_models import minilm_folder, tiny_llama

from lhama.backends.reference.model import write
from lhama.plugins import gguf

Lhama = Callable[..., str]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cli")


@pytest.fixture(scope="module")
def daemon(folder: Path) -> Iterator[Daemon]:
    with running(folder / "models") as daemon:
        yield daemon


@pytest.fixture
def lhama(daemon: Daemon, folder: Path) -> Lhama:
    """Run ``lhama`` to its end; returns what it printed, its errors too where it ``fails``."""

    def run(*arguments: str, stdin: str = "", fails: bool = False) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "lhama.daemon.cli", *arguments],
            env={**os.environ, "OLLAMA_HOST": daemon.url},
            cwd=folder,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert (done.returncode != 0) == fails, done.stderr
        return done.stderr if fails else done.stdout

    return run


def test_a_models_life(daemon: Daemon, lhama: Lhama, folder: Path) -> None:
    write(folder / "weights.gguf")
    lhama("import", "plain", "weights.gguf")
    (folder / "Modelfile").write_text(
        'FROM plain\nSYSTEM """You are\nbrief."""\nPARAMETER num_predict 4\nPARAMETER temperature 0\n'
    )
    lhama("create", "mine")
    lhama("cp", "mine", "yours")
    listed = lhama("list").splitlines()
    assert listed[0].split() == ["NAME", "ID", "SIZE", "MODIFIED"]
    assert {line.split()[0] for line in listed[1:]} == {
        "plain:latest",
        "mine:latest",
        "yours:latest",
    }
    shown = lhama("show", "mine")
    assert "architecture        reference" in shown
    assert "num_predict    4" in shown
    assert "    You are\n    brief." in shown
    assert "PARAMETER num_predict 4" in lhama("show", "mine", "--modelfile")

    # A Modelfile that show wrote makes the same model again.
    (folder / "Again").write_text(lhama("show", "mine", "--modelfile"))
    lhama("create", "again", "-f", "Again")
    assert lhama("show", "again", "--system") == "You are\nbrief.\n"

    answer = lhama("run", "mine", "hello")
    assert answer.strip()
    assert lhama("run", "mine", stdin="hello") == answer
    loaded = lhama("ps").splitlines()[1].split()
    assert loaded[0] in ("plain:latest", "mine:latest")
    assert "100% CPU" in lhama("ps")
    lhama("stop", "mine")
    assert len(lhama("ps").splitlines()) == 1

    lhama("rm", "mine", "yours", "again", "plain")
    assert len(lhama("list").splitlines()) == 1


def test_what_is_not_there_is_said(lhama: Lhama) -> None:
    assert "model 'nothing:latest' not found" in lhama("show", "nothing", fails=True)
    assert "connection refused" in lhama("run", "127.0.0.1:9/a/nothing", "hi", fails=True)
    assert lhama("rm", "nothing", fails=True) == "Error: model 'nothing' not found\n"
    assert 'couldn\'t find model "nothing" to stop' in lhama("stop", "nothing", fails=True)
    assert "not found" in lhama("cp", "nothing", "b", fails=True)


def test_a_second_daemon_on_the_port_is_refused(daemon: Daemon, lhama: Lhama) -> None:
    assert lhama("serve", fails=True).startswith("Error: ")


def test_a_file_that_is_no_model(lhama: Lhama, folder: Path) -> None:
    (folder / "random.gguf").write_bytes(bytes(range(256)) * 64)
    assert (
        lhama("import", "broken", "random.gguf", fails=True).splitlines()[-1].startswith("Error:")
    )
    assert "broken" not in lhama("list")


MODELFILE = '''\
# everything a Modelfile can say
from ./tiny.gguf
FROM ./mmproj.gguf
ADAPTER ./lora.gguf
DRAFT ./draft.gguf
TEMPLATE """{{ if .System }}<|system|>{{ .System }}
{{ end }}<|user|>{{ .Prompt }} <|assistant|>"""
SYSTEM """You are "brief".
  And kind."""
RENDERER qwen3-coder
PARSER qwen3-coder
REQUIRES 0.14.0
PARAMETER stop "<|user|>"
PARAMETER stop <|end|>
PARAMETER temperature 0.123456789
PARAMETER num_ctx 4096
PARAMETER use_mmap false
LICENSE """MIT
yes"""
LICENSE BSD
MESSAGE user "Who: are you? "
MESSAGE assistant """Ask
again"""
'''


def test_a_shown_modelfile_makes_the_same_model_again(
    daemon: Daemon, lhama: Lhama, folder: Path
) -> None:
    tiny_llama(folder / "tiny.gguf")
    tiny_llama(folder / "draft.gguf", seed=1)
    vector = {"x": ((32,), "F32", bytes(128))}
    gguf.write(folder / "lora.gguf", {"general.type": "adapter"}, vector)
    eye = {"general.architecture": "clip", "clip.has_vision_encoder": True}
    gguf.write(folder / "mmproj.gguf", eye, vector)
    (folder / "Full").write_text(MODELFILE)
    lhama("create", "first", "-f", "Full")
    shown = lhama("show", "first", "--modelfile")
    (folder / "Shown").write_text(shown)
    lhama("create", "second", "-f", "Shown")
    assert lhama("show", "second", "--modelfile").replace("second", "first") == shown
    replies = [daemon.call("/api/show", {"model": name}) for name in ("first", "second")]
    for reply in replies:
        reply.pop("modified_at")
        reply["modelfile"] = reply["modelfile"].replace("second", "first")
        reply.pop("requires", None)  # Ollama's Modelfile leaves it out
    assert replies[0] == replies[1]
    assert replies[0]["system"] == 'You are "brief".\n  And kind.'
    assert [m["content"] for m in replies[0]["messages"]] == ["Who: are you? ", "Ask\nagain"]
    listed = {m["name"]: m["size"] for m in daemon.call("/api/tags")["models"]}
    assert abs(listed["first:latest"] - listed["second:latest"]) < 64, "only REQUIRES is missing"


def test_create_from_a_folder_of_safetensors(daemon: Daemon, lhama: Lhama, folder: Path) -> None:
    (folder / "Bert").write_text(f"FROM {minilm_folder()}\n")
    lhama("create", "bert", "-f", "Bert", "-q", "q8_0")
    assert daemon.call("/api/show", {"model": "bert"})["details"]["quantization_level"] == "Q8_0"
    reply = daemon.call("/api/embed", {"model": "bert", "input": "Hello"})
    assert len(reply["embeddings"][0]) == 384


def test_create_says_why_a_folder_is_none(lhama: Lhama, folder: Path) -> None:
    (folder / "pickled").mkdir(exist_ok=True)
    (folder / "pickled" / "pytorch_model.bin").write_bytes(b"PK\x03\x04")
    (folder / "Pickled").write_text("FROM ./pickled")
    error = lhama("create", "x", "-f", "Pickled", fails=True)
    assert "holds pickled weights, which can run any program" in error
