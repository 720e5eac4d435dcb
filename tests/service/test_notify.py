"""The daemon speaks to a real notify socket, as under systemd."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from lhama_testing_daemon import running
from lhama_testing_faults import Stream, refusal, wait_until

from lhama.backends.reference.model import Behaviour, write
from lhama.daemon.notify import Notifier


class Manager:
    """What listens as systemd does: all the time, since ten messages fill the socket."""

    def __init__(self, path: Path) -> None:
        self.said: list[str] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._listening = threading.Thread(target=self._listen, daemon=True)
        self._listening.start()

    def _listen(self) -> None:
        while message := self._socket.recv(4096):
            self.said.append(message.decode())

    def hears(self, wanted: str) -> bool:
        """Whether a message with this line comes, from now on."""
        begin = len(self.said)
        return wait_until(lambda: any(wanted in m.split("\n") for m in self.said[begin:]), 30)

    def heard(self, wanted: str) -> bool:
        """Whether it has come, or comes."""
        return wait_until(lambda: any(wanted in m.split("\n") for m in self.said), 30)

    def close(self) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as last:
            last.sendto(b"", self._socket.getsockname())
        self._listening.join()
        self._socket.close()


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[Manager]:
    manager = Manager(tmp_path / "notify")
    yield manager
    manager.close()


def test_ready_alive_stopping(tmp_path: Path, systemd: Manager) -> None:
    write(tmp_path / "slow.gguf", Behaviour(compute_us=20_000))
    environment = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "600000"}
    with running(tmp_path / "models", **environment) as daemon:
        assert systemd.heard("READY=1")
        assert systemd.heard(f"STATUS=listening on {daemon.url}")
        daemon.create("slow", tmp_path / "slow.gguf")
        assert systemd.hears("WATCHDOG=1")
        body = {"model": "slow", "prompt": "x", "options": {"num_predict": 200}}
        stream = Stream(daemon, "/api/generate", body)
        stream.begin()
        daemon.process.send_signal(signal.SIGTERM)
        assert systemd.heard("STOPPING=1")
        assert refusal(daemon, "/api/generate", body)[0] == 503
        assert systemd.hears("WATCHDOG=1"), "alive while it drains"
        assert stream.rest()[-1]["done"]
        assert daemon.process.wait(30) == 0


def test_a_daemon_that_stands_still_is_silent(tmp_path: Path, systemd: Manager) -> None:
    environment = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "300000"}
    with running(tmp_path / "models", **environment) as daemon:
        assert systemd.heard("WATCHDOG=1")
        daemon.process.send_signal(signal.SIGSTOP)
        time.sleep(0.3)  # what was on its way
        begin = len(systemd.said)
        time.sleep(1)
        assert systemd.said[begin:] == []
        daemon.process.send_signal(signal.SIGCONT)
        assert systemd.hears("WATCHDOG=1")


async def test_who_is_not_well_says_nothing(tmp_path: Path, systemd: Manager) -> None:
    environment = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "3000"}
    notify = Notifier(environment)
    answers = [True, False, False, True]

    class Enough(Exception):
        pass

    async def well() -> bool:
        if not answers:
            raise Enough
        return answers.pop(0)

    with pytest.raises(Enough):
        await notify.beat(well)
    assert wait_until(lambda: systemd.said == ["WATCHDOG=1"] * 2)


def test_a_watchdog_of_another_process_is_not_ours() -> None:
    assert (
        Notifier({"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "5", "WATCHDOG_PID": "1"}).patience == 0
    )
    mine = {"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "5", "WATCHDOG_PID": str(os.getpid())}
    assert Notifier(mine).patience == 5e-6
    Notifier({})("READY=1")
