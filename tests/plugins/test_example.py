"""The example backend: its README is walked, command by command, in an environment of its own."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest
from lhama_testing_daemon import free_port
from lhama_testing_environment import Environment

ROOT = Path(__file__).parents[2]
EXAMPLE = Path("plugins/examples/lhama-ngram")
BLOCK = re.compile(r"^```(sh|text)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
END = "--- end of a block: "

pytestmark = pytest.mark.timeout(600)


class Block(NamedTuple):
    """Commands of the README, and the lines it shows below them."""

    commands: str
    shown: list[str]


def blocks(text: str) -> list[Block]:
    found: list[Block] = []
    for kind, body in BLOCK.findall(text):
        if kind == "sh":
            found.append(Block(body, []))
        else:
            found[-1].shown.extend(body.splitlines())
    return found


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """The variables of a reader's shell."""
    return Environment(tmp_path / "environment").variables(
        OLLAMA_HOST=f"127.0.0.1:{free_port()}", OLLAMA_MODELS=str(tmp_path / "models")
    )


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """What the walk needs of the repository, free to be written in."""
    folder = tmp_path / "clone"
    shutil.copytree(
        ROOT / EXAMPLE,
        folder / EXAMPLE,
        ignore=shutil.ignore_patterns("build", "*.egg-info", "__pycache__"),
    )
    shutil.copytree(ROOT / "docs", folder / "docs", ignore=shutil.ignore_patterns("[!a-z]*"))
    return folder


def walk(walked: list[Block], folder: Path, environment: dict[str, str]) -> list[str]:
    """Run the blocks one after the other in one shell, as a reader would; what each printed."""
    script = "set -e\n" + "".join(
        f"{block.commands}\necho '{END}{number}'\n" for number, block in enumerate(walked)
    )
    with subprocess.Popen(
        ["bash", "-c", script],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as shell:
        assert shell.stdout is not None
        try:
            printed = shell.stdout.read()
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(shell.pid, signal.SIGKILL)  # a daemon that a failure has left
    assert shell.returncode == 0, printed
    return re.split(re.escape(END) + r"\d+\n", printed)


def test_the_readmes_walk(clone: Path, environment: dict[str, str]) -> None:
    walked = blocks((clone / EXAMPLE / "README.md").read_text())
    assert len(walked) > 8
    printed = walk(walked, clone, environment)
    for block, text in zip(walked, printed, strict=False):
        for line in block.shown:
            words = map(re.escape, line.split())
            assert re.search(r".*\b".join(words), text), f"{line!r} is not in\n{text}"
    left = printed[len(walked) - 1]
    assert not re.search(r"^(ngram|mine)\b", left, re.MULTILINE), left


def test_the_guides_package(tmp_path: Path, environment: dict[str, str]) -> None:
    """The files of docs/plugin-authors.md, installed by pip; only the backend itself is ours."""
    package = tmp_path / "lhama-thing"
    files = re.findall(
        r"^```(?:toml|python)\n# (\S+)\n(.*?)^```$",
        (ROOT / "docs" / "plugin-authors.md").read_text(),
        re.MULTILINE | re.DOTALL,
    )
    assert [name for name, _ in files] == [
        "pyproject.toml",
        "lhama_thing/__init__.py",
        "test_conformance.py",
    ]
    for name, content in files:
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(content)
    (package / "lhama_thing" / "backend.py").write_text(
        "from lhama.backends.reference.plugin import ReferenceBackend\n\n\n"
        'class ThingBackend(ReferenceBackend):\n    name = "thing"\n'
    )
    commands = (
        "python -m pip install -q .",
        "lhama plugins",
        "lhama plugins --no-plugins=thing",
        "python -m pytest -q --collect-only test_conformance.py -p no:cacheprovider",
        "python -m pip uninstall -q -y lhama-thing",
    )
    printed = walk([Block(command, []) for command in commands], package, environment)
    assert re.search(r"^thing +1\.0 +cpu +- +loaded$", printed[1], re.MULTILINE), printed[1]
    assert re.search(r"^thing +1\.0 +- +- +blocked$", printed[2], re.MULTILINE), printed[2]
    assert re.search(r"^1[0-9][0-9] tests collected", printed[3], re.MULTILINE), printed[3]
