"""The client programs: what they are, where their clients are installed, what a run of them says."""

from __future__ import annotations

import ast
import hashlib
import json
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import pytest

HERE = Path(__file__).parent
PROGRAMS = HERE / "programs"
REQUIREMENTS = HERE / "requirements"
CACHE = HERE.parents[1] / ".clients"
"""Environments by the hash of what they hold; git-ignored."""

NODE = 20
MINUTES = 60


@dataclass(frozen=True)
class Program:
    """One file of checks, read without running it."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.stem

    @cached_property
    def _text(self) -> str:
        return self.path.read_text()

    @property
    def client(self) -> str:
        """The client's name as docs/compatibility.md shows it."""
        return self._constant(r"""CLIENT(?:, PACKAGES)? = "([^"]+)\"""")

    @property
    def packages(self) -> list[str]:
        found = re.search(r"PACKAGES = (?:\"[^\"]+\", )?(\[.*?\])", self._text, re.DOTALL)
        assert found, f"{self.path} names no PACKAGES"
        return list(ast.literal_eval(found.group(1)))

    @property
    def checks(self) -> list[str]:
        return re.findall(r"^@?check\(\"([^\"]+)\"", self._text, re.MULTILINE)

    def _constant(self, pattern: str) -> str:
        found = re.search(pattern, self._text)
        assert found, f"{self.path} names no CLIENT"
        return found.group(1)


@dataclass(frozen=True)
class Group:
    """Programs that run in one environment, in one process."""

    name: str
    requirements: Path
    programs: Sequence[Program]

    @property
    def environment(self) -> Path:
        """Where it is installed."""
        parts = (self.requirements.read_text(), sys.version, self.name)
        digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()
        return CACHE / f"{self.name}-{digest[:16]}"


def _python(*names: str) -> list[Program]:
    return [Program(PROGRAMS / f"{name}_python.py") for name in names]


GROUPS = (
    Group(
        "python",
        REQUIREMENTS / "python.txt",
        _python(
            *("ollama", "openai", "anthropic", "langchain", "llama_index"),
            *("haystack", "llm", "pydantic_ai"),
        ),
    ),
    Group("litellm", REQUIREMENTS / "litellm.txt", _python("litellm")),
    Group(
        "node",
        REQUIREMENTS / "package.json",
        [
            Program(PROGRAMS / "node" / f"{name}_node.mjs")
            for name in ("ollama", "openai", "ai_sdk", "langchain")
        ],
    ),
)


@dataclass(frozen=True)
class Outcome:
    """What came of one check; ``problem`` is empty where it went well."""

    program: str
    check: str
    problem: str
    seconds: float


# ---------------------------------------------------------------------------------- environments


def installed(group: Group) -> Path:
    """The group's environment, made where it is not there yet.

    Skips without Node, and without a network to install from; fails where installing fails.
    """
    folder = group.environment
    done = folder / "done"
    if done.exists():
        return folder
    commands = _npm(group, folder) if group.name == "node" else _pip(group, folder)
    _need_network("registry.npmjs.org" if group.name == "node" else "pypi.org")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for command in commands:
        result = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=15 * MINUTES
        )
        if result.returncode:
            tail = "\n".join((result.stdout + result.stderr).splitlines()[-20:])
            pytest.fail(f"{' '.join(command)} failed:\n{tail}")
    done.touch()
    return folder


def _pip(group: Group, folder: Path) -> Iterator[list[str]]:
    yield [sys.executable, "-m", "venv", "."]
    # Compiling what is never imported takes as long as downloading it.
    pip = ["bin/python", "-m", "pip", "install", "--quiet", "--no-compile"]
    yield [*pip, "--requirement", str(group.requirements)]


def _npm(group: Group, folder: Path) -> list[list[str]]:
    need_node()
    copy = [sys.executable, "-c", "import shutil, sys; shutil.copy(*sys.argv[1:])"]
    return [
        [*copy, str(group.requirements), "package.json"],
        ["npm", "install", "--no-audit", "--no-fund", "--loglevel=error"],
    ]


def need_node() -> None:
    """Skip where Node is missing or too old."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip(f"Node {NODE} and npm are not installed: no npm client was run")
    version = subprocess.run([node, "--version"], capture_output=True, text=True).stdout.strip()
    if int(version.lstrip("v").split(".")[0]) < NODE:
        pytest.skip(f"Node {NODE} is needed, this is {version}: no npm client was run")


def _need_network(host: str) -> None:
    try:
        socket.create_connection((host, 443), timeout=20).close()
    except OSError as error:
        pytest.skip(f"clients are installed from {host}, which cannot be reached: {error}")


def versions(group: Group, folder: Path) -> dict[str, str]:
    """The installed versions of the packages that the group's programs name."""
    names = [package for program in group.programs for package in program.packages]
    if group.name == "node":
        manifests = {name: folder / "node_modules" / name / "package.json" for name in names}
        return {name: json.loads(m.read_text())["version"] for name, m in manifests.items()}
    code = "import importlib.metadata as m, json, sys; "
    code += "print(json.dumps({n: m.version(n) for n in sys.argv[1:]}))"
    command = [str(folder / "bin" / "python"), "-c", code, *names]
    found: dict[str, str] = json.loads(subprocess.run(command, capture_output=True).stdout)
    return found


# ------------------------------------------------------------------------------------------- runs


def run(group: Group, folder: Path, url: str) -> list[Outcome]:
    """Run the group's programs against the daemon at ``url``."""
    names = [program.name for program in group.programs]
    if group.name == "node":
        for file in (PROGRAMS / "node").glob("*.mjs"):  # packages are found beside the program
            shutil.copy(file, folder)
        command = ["node", "harness.mjs", url, *names]
    else:
        command = [str(folder / "bin" / "python"), str(PROGRAMS / "harness.py"), url, *names]
    result = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=10 * MINUTES
    )
    outcomes = [Outcome(**json.loads(line)) for line in result.stdout.splitlines()]
    missing = [
        Outcome(program.name, check, f"it was not run:\n{result.stderr[-3000:]}", 0.0)
        for program in group.programs
        for check in program.checks
        if not any((o.program, o.check) == (program.name, check) for o in outcomes)
    ]
    return outcomes + missing


@dataclass
class Row:
    """A client in docs/compatibility.md."""

    client: str
    versions: dict[str, str]
    checks: dict[str, bool]

    def write(self) -> None:
        folder = CACHE / "results"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{self.client}.json").write_text(json.dumps(asdict(self)))


def rows(group: Group, folder: Path, outcomes: Sequence[Outcome]) -> list[Row]:
    found = versions(group, folder)
    return [
        Row(
            program.client,
            {name: found[name] for name in program.packages},
            {o.check: not o.problem for o in outcomes if o.program == program.name},
        )
        for program in group.programs
    ]
