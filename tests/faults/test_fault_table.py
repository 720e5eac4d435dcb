"""docs/reliability.md names a test for every fault and every attack, and no test that is not there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_tables_are_what_the_tests_say() -> None:
    command = [sys.executable, str(ROOT / "scripts" / "fault-table"), "--check"]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
