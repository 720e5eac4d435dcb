"""What the tests of faults share: asking, being refused, waiting."""

from __future__ import annotations

import http.client
import json
import time
import urllib.error
from collections.abc import Callable
from typing import Any

import psutil
import pytest
from lhama_testing_daemon import Daemon

from lhama.backends.reference.model import Behaviour

SLOW = Behaviour(compute_us=20_000)
"""20 ms a token: long enough for something to happen meanwhile."""


def ask(daemon: Daemon, model: str = "slow", tokens: int = 3, **more: Any) -> dict[str, Any]:
    """One whole answer."""
    options = {"num_predict": tokens, **more.pop("options", {})}
    body = {"model": model, "prompt": "hello", "stream": False, "options": options}
    reply: dict[str, Any] = daemon.call("/api/generate", body | more)
    return reply


def refusal(
    daemon: Daemon, path: str, body: dict[str, Any] | None = None, method: str = ""
) -> tuple[int, str]:
    """Status and message of a request that must fail."""
    with pytest.raises(urllib.error.HTTPError) as refused:
        daemon.call(path, body, method)
    return refused.value.code, json.loads(refused.value.read())["error"]


def wait_until(condition: Callable[[], Any], seconds: float = 10) -> bool:
    """Whether it became true in time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return bool(condition())


def gone(process: psutil.Process) -> bool:
    """Whether it has ended, reaped or not: an orphan is its new parent's to reap."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


class Stream:
    """A streamed answer on a connection of its own, which can be left at any moment."""

    def __init__(self, daemon: Daemon, path: str, body: dict[str, Any]) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", daemon.port, timeout=60)
        self.connection.request("POST", path, json.dumps(body))

    def begin(self) -> dict[str, Any]:
        """Wait for the first line."""
        self.response = self.connection.getresponse()
        return self.line()

    def line(self) -> dict[str, Any]:
        line: dict[str, Any] = json.loads(self.response.readline())
        return line

    def rest(self) -> list[dict[str, Any]]:
        """All further lines; the connection is closed then."""
        try:
            return [json.loads(line) for line in self.response]
        finally:
            self.leave()

    def leave(self) -> None:
        """Hang up, as a client that is killed does."""
        self.connection.close()
        if hasattr(self, "response"):
            self.response.close()
