"""A daemon whose model takes 20 ms a token."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from lhama_testing_daemon import Daemon, running
from lhama_testing_faults import SLOW

from lhama.backends.reference.model import write


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    write(tmp_path / "slow.gguf", SLOW)
    with running(tmp_path / "models") as daemon:
        daemon.create("slow", tmp_path / "slow.gguf")
        yield daemon
