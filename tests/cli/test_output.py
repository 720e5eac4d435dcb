"""Sizes, times and tables, as a table."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from lhama.daemon.cli.models import processor
from lhama.daemon.cli.output import moment, rate, size, table

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1 KB"),
        (1500, "1.5 KB"),
        (98_362_745, "98 MB"),
        (253_113_180, "253 MB"),
        (2_019_393_189, "2.0 GB"),
        (2_000_000_000, "2 GB"),
        (42_520_413_916, "42 GB"),
        (7_300_000_000_000, "7.3 TB"),
    ],
)
def test_size(count: int, text: str) -> None:
    assert size(count) == text


@pytest.mark.parametrize(
    ("ago", "text"),
    [
        (timedelta(seconds=0.4), "Less than a second ago"),
        (timedelta(seconds=1), "1 second ago"),
        (timedelta(seconds=59), "59 seconds ago"),
        (timedelta(seconds=61), "About a minute ago"),
        (timedelta(minutes=5), "5 minutes ago"),
        (timedelta(minutes=65), "About an hour ago"),
        (timedelta(hours=26), "26 hours ago"),
        (timedelta(days=3), "3 days ago"),
        (timedelta(days=15), "2 weeks ago"),
        (timedelta(days=70), "2 months ago"),
        (timedelta(days=800), "2 years ago"),
        (timedelta(minutes=-5, seconds=1), "4 minutes from now"),
        (timedelta(days=-106_000), "Forever"),
    ],
)
def test_moment(ago: timedelta, text: str) -> None:
    assert moment((NOW - ago).isoformat(), now=NOW) == text


def test_a_zero_time_is_never() -> None:
    assert moment("0001-01-01T00:00:00Z") == "Never"


@pytest.mark.parametrize(
    ("total", "on_device", "text"),
    [
        (100, 0, "100% CPU"),
        (100, 100, "100% GPU"),
        (100, 101, "Unknown"),
        (100, 59, "41%/59% CPU/GPU"),
        (0, 0, "-"),
    ],
)
def test_processor(total: int, on_device: int, text: str) -> None:
    assert processor(total, on_device) == text


def test_table() -> None:
    assert table(("NAME", "ID"), [("a", "1"), ("long", "")]) == "NAME    ID\na       1\nlong"
    assert table((), [("a", "1"), ("b",)], indent="  ") == "  a    1\n  b"
    assert table((), []) == ""


def test_rate() -> None:
    assert rate(10, 2_000_000_000) == "5.00 tokens/s"
    assert rate(10, 0) == "-"
