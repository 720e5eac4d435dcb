"""``lhama doctor`` and ``lhama config``."""

from __future__ import annotations

import json
import os
import socket
import threading
from pathlib import Path

import pytest
from lhama_testing_daemon import free_port, running

from lhama.daemon.cli import about, doctor
from lhama.daemon.config import BadSetting, Settings


def settings(tmp_path: Path, **environment: str) -> Settings:
    port = free_port()
    given = {"OLLAMA_MODELS": str(tmp_path / "models"), "OLLAMA_HOST": f"127.0.0.1:{port}"}
    return Settings.from_environment({"HOME": str(tmp_path), **given, **environment})


def found(settings: Settings) -> dict[str, doctor.Finding]:
    return {finding.what: finding for finding in doctor.examine(settings)}


def test_a_machine_that_runs_models(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor.run(settings(tmp_path), as_json=True) == 0
    shown = {entry["what"]: entry for entry in json.loads(capsys.readouterr().out)}
    assert shown["backend llamacpp"]["state"] == "ok"
    assert "cpu" in shown["backend llamacpp"]["text"]
    assert shown["daemon"]["mend"] == "lhama serve"


def test_a_daemon_is_found(tmp_path: Path) -> None:
    with running(tmp_path / "models") as daemon:
        here = settings(tmp_path, OLLAMA_HOST=f"127.0.0.1:{daemon.port}")
        assert found(here)["daemon"].state == "ok"


def test_a_port_that_something_else_has(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        here = settings(tmp_path, OLLAMA_HOST=f"http://127.0.0.1:{port}")

        def hang_up() -> None:
            for _ in range(2):
                try:
                    other.accept()[0].close()
                except TimeoutError:
                    return

        thread = threading.Thread(target=hang_up)
        other.settimeout(10)
        thread.start()
        assert found(here)["port"].state == "missing"
        thread.join()


def test_cards_without_a_driver_or_permission(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, vendor, kind in (("0", "0x10de", "0x030200"), ("1", "0x8086", "0x030000")):
        (tmp_path / "pci" / name).mkdir(parents=True)
        (tmp_path / "pci" / name / "vendor").write_text(f"{vendor}\n")
        (tmp_path / "pci" / name / "class").write_text(f"{kind}\n")
    (tmp_path / "dri").mkdir()
    node = tmp_path / "dri" / "renderD128"
    node.touch()
    monkeypatch.setattr(doctor, "PCI", tmp_path / "pci")
    monkeypatch.setattr(doctor, "NODES", tmp_path)
    monkeypatch.setattr(doctor, "NVIDIA_DRIVER", tmp_path / "version")
    monkeypatch.setattr(os, "access", lambda path, mode: path != node)
    monkeypatch.setenv("PATH", str(tmp_path))
    seen = found(settings(tmp_path))
    assert seen["NVIDIA driver"].mend.startswith("apt-get install nvidia-driver")
    assert seen["card"].text == f"{node} is closed to you"
    assert seen["card"].mend.startswith(f"usermod -aG {node.stat().st_gid} ")
    assert "without CUDA" in seen["CUDA compiler"].text
    if "cpu" in seen["backend llamacpp"].text and "cuda" not in seen["backend llamacpp"].text:
        assert "GGML_CUDA=on" in seen["llama.cpp"].mend
    (tmp_path / "version").write_text("NVRM version: 580.1\nGCC version\n")
    monkeypatch.undo()
    monkeypatch.setattr(doctor, "NVIDIA_DRIVER", tmp_path / "version")
    assert found(settings(tmp_path))["NVIDIA driver"].text == "NVRM version: 580.1"


def test_what_others_could_read_or_use(tmp_path: Path) -> None:
    (tmp_path / ".ollama").mkdir()
    key = tmp_path / ".ollama/id_ed25519"
    key.write_text("secret")
    key.chmod(0o644)
    seen = found(settings(tmp_path, OLLAMA_HOST=f"0.0.0.0:{free_port()}"))
    assert seen["key"].mend == f"chmod 600 {key}"
    assert "everybody" in seen["access"].text


# ------------------------------------------------------------------------------------- settings


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "config.toml"
    path.write_text(
        'keep_alive = "10m"\nnum_parallel = 3\norigins = ["http://a.b", "http://c.d"]\n'
        'ui = false\napi_keys = ["alice=secret-of-alice"]\n'
    )
    return path


def test_a_flag_wins_over_the_environment_and_that_over_the_file(file: Path) -> None:
    environ = {"LHAMA_CONFIG": str(file), "OLLAMA_NUM_PARALLEL": "5", "OLLAMA_MAX_QUEUE": "7"}
    read = Settings.from_environment(environ, ["max-queue=9"])
    assert (read.num_parallel, read.max_queue, read.ui) == (5, 9, False)
    assert read.keep_alive == 600 * 10**9
    assert read.origins[:2] == ("http://a.b", "http://c.d")
    assert read.api_keys
    assert read.origin_of["OLLAMA_NUM_PARALLEL"] == "environment OLLAMA_NUM_PARALLEL"
    assert read.origin_of["OLLAMA_MAX_QUEUE"] == "--set max_queue"
    assert read.origin_of["OLLAMA_KEEP_ALIVE"] == f"file {file}"
    assert read.origin_of["OLLAMA_LOAD_TIMEOUT"] == "default"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("keepalive = 3", "there is no setting 'keepalive': did you mean keep_alive?"),
        ("keep_alive = ", "is not TOML"),
        ("keep_alive = {a = 1}", "keep_alive is no text"),
    ],
)
def test_a_file_that_is_wrong_stops_the_start(file: Path, text: str, problem: str) -> None:
    file.write_text(text)
    with pytest.raises(BadSetting, match=problem):
        Settings.from_environment({"LHAMA_CONFIG": str(file)})
    with pytest.raises(BadSetting, match="cannot be read: No such file"):
        Settings.from_environment({"LHAMA_CONFIG": str(file) + ".none"})


def test_config_shows_each_value_and_no_secret(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    environ = {"LHAMA_CONFIG": str(file), "OLLAMA_HOST": "0.0.0.0:1234", "HF_TOKEN": "t0ken"}
    about.config(Settings.from_environment(environ))
    shown = capsys.readouterr().out
    lines = {line.split()[0]: line.split()[1:] for line in shown.splitlines()[1:]}
    assert lines["keep_alive"] == ["file", str(file), "10m0s"]
    assert lines["host"] == ["environment", "OLLAMA_HOST", "0.0.0.0:1234"]
    assert lines["max_queue"] == ["default", "512"]
    assert "t0ken" not in shown
    assert "secret" not in shown
    assert {"models", "pipeline", "no_plugins", "noprune", "hosts", "ui", "tls_cert"} <= set(lines)
