"""An engine's whole life: loaded, used, closed, and everything given back."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from lhama.plugins.testing.driver import Driver, Stream
from lhama.plugins.testing.subject import Subject
from lhama.plugins.testing.suite import Suite, need

_STATUS = Path("/proc/self/statm")


def resident() -> int:
    """Bytes of this process in memory."""
    return int(_STATUS.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def live(subject: Subject) -> int:
    """One short life; returns what the engine said it takes."""
    engine = subject.load()
    tokens = engine.tokenizer.encode("Hello there", add_special=True, parse_special=True)
    Driver(engine).generate(Stream(0, tokens, 2))
    taken = engine.residency.total_bytes
    engine.close()
    return taken


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

    def test_closing_ends_its_threads(self, subject: Subject) -> None:
        live(subject)
        before = set(threading.enumerate())
        live(subject)
        assert set(threading.enumerate()) <= before

    def test_closing_gives_files_back(self, subject: Subject) -> None:
        need(_STATUS.exists(), "Linux's /proc")
        live(subject)
        before = len(os.listdir("/proc/self/fd"))
        live(subject)
        assert len(os.listdir("/proc/self/fd")) <= before

    def test_closing_gives_memory_back(self, subject: Subject) -> None:
        """After a first life has warmed everything up, two more leave less behind than one takes."""
        need(_STATUS.exists(), "Linux's /proc")
        taken = live(subject)
        before = resident()
        live(subject)
        live(subject)
        assert resident() - before < max(taken, 16 << 20)
