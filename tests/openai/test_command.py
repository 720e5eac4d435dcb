"""``lhama-openai``: usual mistakes, in a line each."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from lhama_openai.command import main


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in os.environ:
        if name.startswith("LHAMA_OPENAI_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("LHAMA_OPENAI_CONFIG", str(tmp_path / "openai.toml"))


def refused(*arguments: str) -> str:
    with pytest.raises(SystemExit) as end:
        main(arguments)
    return str(end.value.code)


def test_without_a_server(tmp_path: Path) -> None:
    for verb in (("models",), ("add", "m", "gpu/m")):
        assert refused(*verb) == (
            f"no server is set up: write {tmp_path / 'openai.toml'}, or set LHAMA_OPENAI_GPU_URL"
        )


def test_with_another_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LHAMA_OPENAI_GPU_URL", "http://127.0.0.1:1/v1")
    assert refused("add", "m", "cpu/m") == "no server 'cpu' is set up; there is gpu"
    assert refused("models") == "http://127.0.0.1:1/v1/models: Connection refused"
