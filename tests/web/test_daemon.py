"""The daemon as a process: start, port, signals."""

from __future__ import annotations

import asyncio
import signal
import socket
from pathlib import Path
from unittest.mock import Mock

import pytest

from lhama.daemon import app
from lhama.daemon.config import Settings
from lhama.daemon.listener import CannotListen, bind


def test_a_port_in_use_is_said_in_words() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(CannotListen, match="already in use: is another lhama or ollama"):
            bind(Settings(port=port))


@pytest.mark.parametrize(
    ("host", "problem"),
    [("192.0.2.1", "no address of this machine"), ("no.such.host.invalid", "no such host")],
)
def test_a_host_that_is_not_here(host: str, problem: str) -> None:
    with pytest.raises(CannotListen, match=problem):
        bind(Settings(host=host, port=0))


def test_a_free_port_is_reported(tmp_path: Path) -> None:
    settings = Settings(models=tmp_path, port=0)
    seen: list[Settings] = []

    def ready(bound: Settings) -> None:
        seen.append(bound)
        signal.raise_signal(signal.SIGTERM)

    asyncio.run(app.serve(settings, ready))
    assert seen[0].port > 0


def test_a_backend_that_is_not_there_is_told_of_at_the_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told = Mock()
    monkeypatch.setattr(app, "log", told)
    app.discover(Settings(backend="llamacp"))
    [call] = told.warning.call_args_list
    assert call.kwargs["reason"].startswith("there is no backend 'llamacp' (available: ")
