"""Settings from an environment, by Ollama's parsing rules."""

from __future__ import annotations

from pathlib import Path

import pytest

from lhama.daemon.config import BadSetting, Settings
from lhama.daemon.durations import FOREVER, MINUTE, SECOND


@pytest.mark.parametrize(
    ("value", "scheme", "host", "port"),
    [
        ("", "http", "127.0.0.1", 11434),
        ("1.2.3.4", "http", "1.2.3.4", 11434),
        ("1.2.3.4:1234", "http", "1.2.3.4", 1234),
        (":1234", "http", "", 1234),
        ("0.0.0.0", "http", "0.0.0.0", 11434),
        ("1.2.3.4:66000", "http", "1.2.3.4", 11434),
        ("1.2.3.4:-1", "http", "1.2.3.4", 11434),
        ("[::1]", "http", "::1", 11434),
        ("[::1]:1337", "http", "::1", 1337),
        ("[fe80::1%eth0]:80", "http", "fe80::1%eth0", 80),
        ("::1", "http", "::1", 11434),
        ("http://1.2.3.4", "http", "1.2.3.4", 80),
        ("http://1.2.3.4:4321", "http", "1.2.3.4", 4321),
        ("https://example.com", "https", "example.com", 443),
        ("example.com:8080", "http", "example.com", 8080),
        ('"1.2.3.4"', "http", "1.2.3.4", 11434),
        (" ' 1.2.3.4 ' ", "http", "1.2.3.4", 11434),
    ],
)
def test_host_and_port(value: str, scheme: str, host: str, port: int) -> None:
    settings = Settings.from_environment({"OLLAMA_HOST": value})
    assert (settings.scheme, settings.host, settings.port) == (scheme, host, port)


@pytest.mark.parametrize("value", ["two words", "http://[bad", "a:b:c", "user:key@example.com:1"])
def test_what_is_no_host_is_refused(value: str) -> None:
    with pytest.raises(BadSetting, match="is no host's name or address"):
        Settings.from_environment({"OLLAMA_HOST": value})


def test_path_of_host_is_kept() -> None:
    settings = Settings.from_environment({"OLLAMA_HOST": "https://example.com/ollama"})
    assert settings.url == "https://example.com:443/ollama"


def test_a_wildcard_address_is_reached_through_loopback() -> None:
    assert Settings.from_environment({"OLLAMA_HOST": "0.0.0.0"}).url == "http://127.0.0.1:11434"
    assert Settings.from_environment({"OLLAMA_HOST": "[::]:1"}).url == "http://[::1]:1"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("", 5 * MINUTE),
        ("1s", SECOND),
        ("42m", 42 * MINUTE),
        ("0", 0),
        ("60", MINUTE),
        ("-1", FOREVER),
        ("-10s", FOREVER),
        ("soon", 5 * MINUTE),
        ('"30s"', 30 * SECOND),
    ],
)
def test_keep_alive(value: str, expected: int) -> None:
    assert Settings.from_environment({"OLLAMA_KEEP_ALIVE": value}).keep_alive == expected


def test_a_load_timeout_of_zero_never_ends() -> None:
    assert Settings.from_environment({"OLLAMA_LOAD_TIMEOUT": "0"}).load_timeout == FOREVER


def test_a_bad_number_becomes_the_default_and_a_warning() -> None:
    settings = Settings.from_environment({"OLLAMA_MAX_QUEUE": "many"})
    assert settings.max_queue == 512
    assert "OLLAMA_MAX_QUEUE" in settings.warnings[0]


@pytest.mark.parametrize(
    ("value", "expected"),
    [("", None), ("0", False), ("false", False), ("1", True), ("TRUE", True), ("random", True)],
)
def test_booleans(value: str, expected: bool | None) -> None:
    assert Settings.from_environment({"OLLAMA_FLASH_ATTENTION": value}).flash_attention is expected


def test_models_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    environ = {"HOME": str(tmp_path)}
    assert Settings.from_environment(environ).models.name == "models"
    assert "lhama" in Settings.from_environment(environ).models.parts
    (tmp_path / ".ollama" / "models").mkdir(parents=True)
    assert Settings.from_environment(environ).models == tmp_path / ".ollama" / "models"
    environ["OLLAMA_MODELS"] = "/somewhere"
    assert Settings.from_environment(environ).models == Path("/somewhere")


def test_origins_come_before_the_built_in_ones() -> None:
    settings = Settings.from_environment({"OLLAMA_ORIGINS": "http://10.0.0.1,chrome-extension://*"})
    assert settings.origins[:2] == ("http://10.0.0.1", "chrome-extension://*")
    assert "https://localhost:*" in settings.origins


def test_an_origin_that_can_never_match_stops_the_start() -> None:
    with pytest.raises(BadSetting, match="can never match"):
        Settings.from_environment({"OLLAMA_ORIGINS": "my.site"})


def test_flags_win_over_the_environment() -> None:
    environ = {"OLLAMA_HOST": "1.2.3.4:1", "LHAMA_PIPELINE": "off"}
    settings = Settings.from_environment(environ, port=99, pipeline=None)
    assert (settings.host, settings.port, settings.pipeline) == ("1.2.3.4", 99, "off")


def test_plugins_can_be_left_out() -> None:
    some = Settings.from_environment({"LHAMA_NO_PLUGINS": "pytorch, other"})
    assert some.blocked_plugins == ("pytorch", "other")
    assert Settings.from_environment({"LHAMA_NO_PLUGINS": "all"}).blocked_plugins == ("*",)
