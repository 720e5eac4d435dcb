"""Times as Go prints them."""

from __future__ import annotations

import time

import pytest

from lhama.daemon.durations import FOREVER
from lhama.daemon.protocol import times


@pytest.mark.parametrize(
    ("ns", "expected"),
    [
        (0, "1970-01-01T00:00:00Z"),
        (1_795_426_378_717_761_023, "2026-11-23T09:32:58.717761023Z"),
        (1_795_426_378_700_000_000, "2026-11-23T09:32:58.7Z"),
    ],
)
def test_utc(ns: int, expected: str) -> None:
    assert times.utc(ns) == expected


def test_local_offsets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "IST-5:30")
    time.tzset()
    try:
        assert times.local(1_500_000_000) == "1970-01-01T05:30:01.5+05:30"
    finally:
        monkeypatch.delenv("TZ")
        time.tzset()


def test_forever_can_be_written() -> None:
    assert times.local(time.time_ns() + FOREVER).startswith("2319-") or times.local(2**64)
