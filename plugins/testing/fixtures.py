"""pytest fixtures for plugins' own tests: a fresh discovery, and a daemon to ask."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lhama.plugins.manager import discover
from lhama.plugins.registry import Registry

START_SECONDS = 60


@pytest.fixture
def lhama_registry() -> Registry:
    """What the plugins installed here bring, discovered anew."""
    return discover()


@contextlib.contextmanager
def serving(folder: Path, **environment: str) -> Iterator[str]:
    """The address of a daemon in a process of its own, with a store and a log in ``folder``."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{s.getsockname()[1]}"
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("OLLAMA_", "LHAMA_"))}
    own = {"OLLAMA_HOST": address, "OLLAMA_MODELS": str(folder / "models"), **environment}
    log = folder / "lhama.log"
    with log.open("ab") as out:
        daemon = subprocess.Popen(
            [sys.executable, "-P", "-m", "lhama.daemon.cli", "serve"],
            env=kept | own,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
        )
    try:
        _wait(daemon, f"http://{address}/api/version", log)
        yield f"http://{address}"
    finally:
        daemon.terminate()
        try:
            daemon.wait(15)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()


@pytest.fixture
def lhama_daemon(tmp_path: Path) -> Iterator[Callable[..., str]]:
    """Starts a daemon with the environment given as keywords, and returns its address."""
    with contextlib.ExitStack() as stack:
        yield lambda **environment: stack.enter_context(serving(tmp_path, **environment))


def _wait(daemon: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while daemon.poll() is None and time.monotonic() < deadline:
        try:
            urllib.request.urlopen(url, timeout=10).close()
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.05)
        else:
            return
    raise AssertionError(f"the daemon did not start:\n{log.read_text()}")
