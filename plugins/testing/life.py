"""An engine's whole life: loaded, used, closed, and everything given back."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import NamedTuple

import pytest

from lhama.plugins.testing.driver import Driver, Stream
from lhama.plugins.testing.subject import Subject
from lhama.plugins.testing.suite import Suite, need

_STATUS = Path("/proc/self/statm")


class Trace(NamedTuple):
    """What a process holds after an engine's life."""

    threads: int
    files: int
    resident: int
    """Bytes of memory."""
    taken: int
    """Bytes the engine said it takes."""


def live(subject: Subject) -> Trace:
    """One short life of an engine."""
    engine = subject.load()
    tokens = engine.tokenizer.encode("Hello there", add_special=True, parse_special=True)
    Driver(engine).generate(Stream(0, tokens, 2))
    taken = engine.residency.total_bytes
    engine.close()
    files = resident = 0
    if _STATUS.exists():
        files = len(os.listdir("/proc/self/fd"))
        resident = int(_STATUS.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return Trace(threading.active_count(), files, resident, taken)


class Life(Suite):
    """``load`` and ``close``."""

    def test_an_engine_may_close_unused(self, subject: Subject) -> None:
        subject.load().close()

    def test_a_second_engine_says_what_the_first_said(self, subject: Subject) -> None:
        answers = []
        for _ in range(2):
            engine = subject.load()
            tokens = engine.tokenizer.encode("Hello there", add_special=True, parse_special=True)
            answers.append(Driver(engine).generate(Stream(0, tokens, 2)))
            engine.close()
        assert answers[0] == answers[1]

    @pytest.fixture(scope="class")
    @classmethod
    def lives(cls, subject: Subject) -> list[Trace]:
        """What is left after each of three lives; the first has warmed everything up."""
        return [live(subject) for _ in range(3)]

    def test_closing_ends_its_threads(self, lives: list[Trace]) -> None:
        assert lives[2].threads <= lives[0].threads

    def test_closing_gives_files_back(self, lives: list[Trace]) -> None:
        need(_STATUS.exists(), "Linux's /proc")
        assert lives[2].files <= lives[0].files

    def test_closing_gives_memory_back(self, lives: list[Trace]) -> None:
        """Two lives leave less behind than one takes."""
        need(_STATUS.exists(), "Linux's /proc")
        assert lives[2].resident - lives[0].resident < max(lives[0].taken, 16 << 20)
