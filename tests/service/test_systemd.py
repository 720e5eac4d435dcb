"""The service under a real systemd: installed, ready, watched, stopped, removed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from lhama_testing_daemon import Daemon, free_port
from lhama_testing_faults import SLOW, Stream, wait_until
from lhama_testing_machine import Machine, booted

from lhama.backends.reference.model import write


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    with booted(tmp_path_factory.mktemp("machine")) as machine:
        yield machine


def answers(daemon: Daemon) -> bool:
    try:
        return bool(daemon.call("/health/ready"))
    except OSError:
        return False


@pytest.mark.fault(4, 5)
def test_a_service_from_install_to_uninstall(machine: Machine, tmp_path: Path) -> None:
    port = free_port()
    settings = {"OLLAMA_HOST": f"127.0.0.1:{port}"}
    said = machine.lhama("service", "install", "--system", **settings)
    assert f"lhama runs, and will: http://127.0.0.1:{port}" in said
    # Started is ready: install returns when READY=1 has come.
    daemon = Daemon(port, tmp_path, None, tmp_path)  # type: ignore[arg-type]
    assert answers(daemon)
    assert 'Status: "listening on' in machine.lhama("service", "status", "--system")
    assert "listening" in machine.lhama("service", "logs", "--system")
    write(tmp_path / "slow.gguf", SLOW)
    daemon.create("slow", tmp_path / "slow.gguf")
    body = {"model": "slow", "prompt": "x", "options": {"num_predict": 100}}

    # A daemon that stands still is replaced, and its runners with it.
    machine.run("bash", "-c", "mkdir -p /run/systemd/system/lhama.service.d")
    drop_in = "/run/systemd/system/lhama.service.d/quick.conf"
    machine.run("bash", "-c", f"printf '[Service]\\nWatchdogSec=2\\n' > {drop_in}")
    machine.run("systemctl", "daemon-reload")
    assert machine.run("systemctl", "restart", "lhama").returncode == 0
    assert daemon.call("/api/generate", body | {"stream": False})["done"]
    first = machine.property("MainPID")
    assert machine.run("kill", "-STOP", first).returncode == 0
    assert wait_until(lambda: machine.property("MainPID") not in (first, "0"), 30)
    assert machine.property("NRestarts") == "1"
    assert wait_until(lambda: answers(daemon), 30)
    runners = "pgrep -cf '[l]hama.daemon.runner'"
    assert machine.run("bash", "-c", runners).stdout.strip() == "0"

    # A stop lets streams finish.
    stream = Stream(daemon, "/api/generate", body)
    stream.begin()
    assert machine.run("systemctl", "stop", "lhama").returncode == 0
    assert stream.rest()[-1]["done"]
    assert machine.property("Result") == "success"
    assert machine.property("ExecMainStatus") == "0"

    machine.lhama("service", "uninstall", "--system")
    assert machine.property("LoadState") == "not-found"
    assert not answers(daemon)


def test_it_has_a_user_of_its_own(machine: Machine) -> None:
    machine.lhama("service", "install", "--system", OLLAMA_HOST=f"127.0.0.1:{free_port()}")
    pid = machine.property("MainPID")
    assert machine.run("stat", "-c", "%U", f"/proc/{pid}").stdout.strip() == "lhama"
    said = machine.run("systemd-analyze", "security", "--no-pager", "lhama").stdout
    assert " OK " in said.splitlines()[-1], said
    machine.lhama("service", "uninstall", "--system")
