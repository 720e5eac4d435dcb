"""A real daemon in a process of its own, on a free port and a store of its own."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil


@dataclass
class Daemon:
    """Where a daemon answers, and its process."""

    port: int
    store: Path
    process: subprocess.Popen[bytes]
    log: Path
    uploaded: set[str] = field(default_factory=set)
    scheme: str = "http"
    trusted: ssl.SSLContext | None = None
    """What an https client trusts."""

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}"

    def call(self, path: str, body: dict[str, Any] | None = None, method: str = "") -> Any:
        """One JSON request; raises ``urllib.error.HTTPError`` for an error status."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            self.url + path, data, method=method or ("GET" if data is None else "POST")
        )
        with urllib.request.urlopen(request, timeout=120, context=self.trusted) as reply:
            text = reply.read()
        return json.loads(text) if text else None

    def lines(self, path: str, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """The lines of a streamed answer, as they come."""
        request = urllib.request.Request(self.url + path, json.dumps(body).encode())
        with urllib.request.urlopen(request, timeout=120, context=self.trusted) as reply:
            for line in reply:
                yield json.loads(line)

    def create(self, name: str, gguf: Path, **more: Any) -> None:
        """Upload a file and make a model of it, as ``ollama create`` does."""
        digest = "sha256:" + hashlib.sha256(gguf.read_bytes()).hexdigest()
        if digest not in self.uploaded:
            with gguf.open("rb") as file:
                request = urllib.request.Request(
                    f"{self.url}/api/blobs/{digest}", file, method="POST"
                )
                request.add_header("Content-Length", str(gguf.stat().st_size))
                urllib.request.urlopen(request, timeout=120, context=self.trusted).close()
            self.uploaded.add(digest)
        body = {"model": name, "files": {gguf.name: digest}, "stream": False, **more}
        assert self.call("/api/create", body) == {"status": "success"}

    def runners(self) -> list[psutil.Process]:
        """The runner processes that live."""
        return children(self.process.pid, "lhama.daemon.runner")

    def workers(self) -> list[psutil.Process]:
        """The worker processes that live."""
        return children(self.process.pid, "lhama.daemon.worker")

    def stop(self) -> int:
        """SIGTERM, and the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)


def children(parent: int, module: str) -> list[psutil.Process]:
    """The children of a process that run this module; dying ones do not count."""
    found = []
    for child in psutil.Process(parent).children():
        try:
            if module in child.cmdline():
                found.append(child)
        except psutil.Error:
            continue
    return found


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


@contextlib.contextmanager
def running(
    store: Path,
    scheme: str = "http",
    trusted: ssl.SSLContext | None = None,
    python: str = sys.executable,
    **environment: str,
) -> Iterator[Daemon]:
    """Start a daemon, wait until it answers, stop it in the end."""
    given = environment.get("OLLAMA_HOST", "")
    port = int(given.rpartition(":")[2]) if given else free_port()
    log = store.parent / f"daemon-{port}.log"
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("OLLAMA_", "LHAMA_"))}
    environment = {
        "LHAMA_CONFIG": "",
        "OLLAMA_MODELS": str(store),
        "OLLAMA_HOST": f"127.0.0.1:{port}",
        **environment,
    }
    with log.open("wb") as out:
        process = subprocess.Popen(
            [python, "-m", "lhama.daemon.cli", "serve"],
            env=kept | environment,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
        )
    daemon = Daemon(port, store, process, log, scheme=scheme, trusted=trusted)
    try:
        _wait(daemon)
        yield daemon
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait(daemon: Daemon) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if daemon.process.poll() is not None:
            raise AssertionError(f"the daemon ended at start:\n{daemon.log.read_text()}")
        try:
            daemon.call("/api/version")
        except urllib.error.HTTPError:
            return  # it wants a key
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.05)
        else:
            return
    raise AssertionError(f"the daemon did not answer:\n{daemon.log.read_text()}")
