"""Runs the command line in this process against a server of prepared replies."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lhama_testing_replay import Lhama, Outcome, Replay, serving

from lhama.daemon.cli import main


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Replay]:
    """The server ``OLLAMA_HOST`` names; state and history go to a fresh home."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    with serving() as replay:
        monkeypatch.setenv("OLLAMA_HOST", replay.url)
        yield replay


@pytest.fixture
def lhama(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Lhama:
    """Call ``lhama`` with arguments; ``stdin`` is piped text, ``None``: it is closed."""

    def call(*arguments: str, stdin: str | None = "") -> Outcome:
        monkeypatch.setattr(sys, "stdin", None if stdin is None else io.StringIO(stdin))
        code: Any = 0
        try:
            main(arguments)
        except SystemExit as end:
            code = end.code
        out, err = capsys.readouterr()
        if isinstance(code, str):
            return Outcome(1, out, err + code)
        return Outcome(code or 0, out, err)

    return call
