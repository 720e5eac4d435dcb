"""The service's descriptions, held against systemd's own judgement and Apple's keys."""

from __future__ import annotations

import plistlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lhama.daemon.cli import main, service
from lhama.daemon.config import Settings
from lhama.daemon.durations import SECOND
from lhama.daemon.units import Unit

COMMAND = (sys.executable, "-m", "lhama.daemon.cli", "serve")
ANALYZE = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze")

MOST_EXPOSED = 3.0
"""Of 10, by ``systemd-analyze security``; what is left is devices, memory that runs, the network."""

APPLES_KEYS = {
    *("Label", "ProgramArguments", "EnvironmentVariables", "RunAtLoad", "KeepAlive"),
    *("ThrottleInterval", "ExitTimeOut", "ProcessType", "SoftResourceLimits"),
    *("StandardOutPath", "StandardErrorPath"),
}
"""Of launchd.plist(5), as far as they are used here."""


def unit(*, system: bool = True, **environment: str) -> Unit:
    return Unit(COMMAND, environment, 30 * SECOND, system=system, writable=(Path("/home/x y"),))


@ANALYZE
@pytest.mark.parametrize("system", [True, False])
def test_systemd_finds_nothing_wrong(tmp_path: Path, system: bool) -> None:
    path = tmp_path / "lhama.service"
    path.write_text(unit(system=system, OLLAMA_HOST="0.0.0.0", ODD='a b"$HOME"%n').systemd())
    command = ["systemd-analyze", "--system" if system else "--user", "verify", "--man=no"]
    ran = subprocess.run([*command, str(path)], capture_output=True, text=True)
    assert "lhama.service" not in ran.stderr, ran.stderr


@ANALYZE
def test_the_unit_is_not_exposed(tmp_path: Path) -> None:
    path = tmp_path / "lhama.service"
    path.write_text(unit().systemd())
    command = ["systemd-analyze", "security", "--offline=true", "--no-pager", str(path)]
    ran = subprocess.run(command, capture_output=True, text=True)
    score = re.search(r"Overall exposure level for lhama.service: ([0-9.]+)", ran.stdout)
    assert score, ran.stdout + ran.stderr
    assert float(score[1]) <= MOST_EXPOSED


def test_what_the_daemon_needs_is_permitted() -> None:
    """Graphics cards are devices, and kernels are compiled while it runs."""
    for system in (True, False):
        text = unit(system=system).systemd()
        assert "PrivateDevices" not in text
        assert "MemoryDenyWriteExecute" not in text
        assert "TimeoutStopSec=45" in text, "longer than the daemon's own grace"
        assert "Type=notify" in text
        assert "WatchdogSec=60" in text
    assert 'ReadWritePaths=-"/home/x y"' in unit(system=False).systemd()


def test_groups_that_are_not_there_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """systemd starts no unit that names one."""
    monkeypatch.setattr(service, "CARDS", ("root", "no-such-group"))
    text = service.text(Settings(), system=True)
    assert "SupplementaryGroups=root\n" in text
    assert "SupplementaryGroups" not in unit().systemd()


def test_nvidias_helper_runs_before_with_privileges(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "ExecStartPre" not in service.text(Settings(), system=True)
    helper = tmp_path / "nvidia-modprobe"
    helper.touch(0o755)
    text = service.text(Settings(), system=True)
    assert f"\nExecStartPre=-+{helper} -u -c=0\n" in text
    assert "ExecStartPre" not in service.text(Settings(), system=False)


def test_what_is_closed_to_the_service_is_refused(tmp_path: Path) -> None:
    service._for_everybody(Path("/bin/sh"))
    program = tmp_path / "python"
    program.touch()
    tmp_path.chmod(0o700)
    with pytest.raises(service.ServiceError, match=f"closed to others.* needs {program}: install"):
        service._for_everybody(program)


def test_the_agent_has_apples_keys() -> None:
    agent = plistlib.loads(unit(OLLAMA_HOST="x").launchd(Path("/tmp/lhama.log")))
    assert set(agent) == APPLES_KEYS
    assert agent["ProgramArguments"] == list(COMMAND)
    assert agent["EnvironmentVariables"] == {"OLLAMA_HOST": "x"}
    assert agent["ExitTimeOut"] == 45


@pytest.fixture
def systemctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A systemctl that writes down what it is asked; the real one needs a running systemd."""
    asked = tmp_path / "asked"
    script = tmp_path / "bin" / "systemctl"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\necho "$@" >> {asked}\n')
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{script.parent}:/usr/bin:/bin")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return asked


def lhama(*arguments: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["service", *arguments])
    assert ended.value.code == 0


@pytest.mark.skipif(sys.platform != "linux", reason="systemd is Linux's")
def test_install_and_uninstall(
    tmp_path: Path,
    systemctl: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("OLLAMA_KEEP_ALIVE", "10m")
    path = tmp_path / "config/systemd/user/lhama.service"
    lhama("install", "--user")
    assert "Environment=OLLAMA_KEEP_ALIVE=10m" in path.read_text()
    assert path.stat().st_mode & 0o077 == 0, "there may be keys in it"
    lhama("uninstall", "--user")
    assert not path.exists()
    assert systemctl.read_text().splitlines() == [
        "--user daemon-reload",
        "--user enable --now lhama",
        "--user disable --now lhama",
        "--user daemon-reload",
    ]
    with pytest.raises(SystemExit, match="no service is installed"):
        main(["service", "uninstall", "--user"])


def test_where_there_is_no_service_manager(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    where = service.Place(tmp_path / "x", ("systemctl",))
    with pytest.raises(service.ServiceError, match="lhama serve"):
        service._ask(where, "daemon-reload")
