"""Go's durations, read and written."""

from __future__ import annotations

import pytest

from lhama.daemon import durations


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", 0),
        ("5s", 5_000_000_000),
        ("1h30m", 5_400_000_000_000),
        ("1.5s", 1_500_000_000),
        (".5m", 30_000_000_000),
        ("-2m", -120_000_000_000),
        ("+3ms", 3_000_000),
        ("10µs", 10_000),
        ("2562047h47m16.854775807s", 2**63 - 1),
    ],
)
def test_parse(text: str, expected: int) -> None:
    assert durations.parse(text) == expected


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("soon", 'time: invalid duration "soon"'),
        ("", 'time: invalid duration ""'),
        ("10", 'time: missing unit in duration "10"'),
        ("5x", 'time: unknown unit "x" in duration "5x"'),
        (".s", 'time: invalid duration ".s"'),
        ("5µ\t", r'time: unknown unit "\xc2\xb5\x09" in duration "5\xc2\xb5\x09"'),
        ("99999999999999999999x", 'time: invalid duration "99999999999999999999x"'),
        ("9999999999s5x", 'time: invalid duration "9999999999s5x"'),
        ("9999999h", 'time: invalid duration "9999999h"'),
    ],
)
def test_parse_errors(text: str, error: str) -> None:
    with pytest.raises(ValueError) as caught:
        durations.parse(text)
    assert str(caught.value) == error


@pytest.mark.parametrize(
    ("duration", "expected"),
    [
        (0, "0s"),
        (300_000_000_000, "5m0s"),
        (3_600_000_000_000, "1h0m0s"),
        (1_500_000_000, "1.5s"),
        (320_000_000, "320ms"),
        (-90_000_000_000, "-1m30s"),
        (1_100, "1.1µs"),
        (7, "7ns"),
    ],
)
def test_render(duration: int, expected: str) -> None:
    assert durations.render(duration) == expected
    assert durations.parse(expected) == duration


def test_seconds() -> None:
    assert durations.seconds(-1) == durations.FOREVER
    assert durations.seconds(1.5) == 1_500_000_000
    assert durations.seconds(1e30) == durations.FOREVER
