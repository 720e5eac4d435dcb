"""A few seconds of coverage-guided fuzzing; ``scripts/fuzz`` goes on for as long as one likes."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
from lhama_testing_invariants import BY_KIND

FUZZ = Path(__file__).resolve().parents[2] / "scripts" / "fuzz"


@pytest.mark.skipif(
    importlib.util.find_spec("atheris") is None, reason="atheris has no wheel for this Python"
)
@pytest.mark.parametrize("kind", BY_KIND)
def test_nothing_breaks_within_seconds(kind: str) -> None:
    command = [sys.executable, str(FUZZ), kind, "--seconds", "3"]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr[-4000:]
    assert "stat::number_of_executed_units" in ran.stderr
