"""Durations as Go writes and reads them: integer nanoseconds, ``5m0s``, ``1h30m``."""

from __future__ import annotations

import re
from typing import TypeAlias

Duration: TypeAlias = int
"""Nanoseconds, as everywhere on Ollama's wire."""

NANOSECOND: Duration = 1
MICROSECOND: Duration = 1_000
MILLISECOND: Duration = 1_000_000
SECOND: Duration = 1_000_000_000
MINUTE: Duration = 60 * SECOND
HOUR: Duration = 60 * MINUTE

FOREVER: Duration = 2**63 - 1
"""Go's largest duration, about 292 years; any negative ``keep_alive`` means it."""

_MOST = 2**63
"""What Go counts to before it looks at a sign."""

_UNITS = {
    "ns": NANOSECOND,
    "us": MICROSECOND,
    "µs": MICROSECOND,
    "μs": MICROSECOND,
    "ms": MILLISECOND,
    "s": SECOND,
    "m": MINUTE,
    "h": HOUR,
}
_TERM = re.compile(r"([0-9]*)(\.[0-9]*)?([^0-9.]*)")


def parse(text: str) -> Duration:
    """Read a Go duration. Raises ``ValueError`` with Go's own text."""
    invalid = f"time: invalid duration {_quoted(text)}"
    rest = text
    negative = rest[:1] == "-"
    if rest[:1] in ("-", "+"):
        rest = rest[1:]
    if rest == "0":
        return 0
    if not rest:
        raise ValueError(invalid)
    total = 0
    while rest:
        match = _TERM.match(rest)
        assert match is not None, "every part is optional"
        whole, fraction, unit = match[1], match[2] or "", match[3]
        count = int(whole or "0")
        if count > _MOST or (not whole and len(fraction) < 2):
            raise ValueError(invalid)
        if not unit:
            raise ValueError(f"time: missing unit in duration {_quoted(text)}")
        if unit not in _UNITS:
            raise ValueError(f"time: unknown unit {_quoted(unit)} in duration {_quoted(text)}")
        size = _UNITS[unit]
        digits = fraction[1:]
        total += count * size
        total += int(digits) * size // 10 ** len(digits) if digits else 0
        if total > _MOST:
            raise ValueError(invalid)
        rest = rest[match.end() :]
    if total > FOREVER + negative:
        raise ValueError(invalid)
    return -total if negative else total


def render(duration: Duration) -> str:
    """Write a duration as Go prints it: ``0s``, ``1.5s``, ``5m0s``, ``320ms``."""
    if duration == 0:
        return "0s"
    sign, left = ("-", -duration) if duration < 0 else ("", duration)
    if left < SECOND:
        for unit, size in (("ms", MILLISECOND), ("µs", MICROSECOND), ("ns", NANOSECOND)):
            if left >= size:
                return f"{sign}{_decimal(left, size)}{unit}"
    hours, left = divmod(left, HOUR)
    minutes, left = divmod(left, MINUTE)
    seconds = f"{_decimal(left, SECOND)}s"
    if hours:
        return f"{sign}{hours}h{minutes}m{seconds}"
    return f"{sign}{minutes}m{seconds}" if minutes else sign + seconds


def seconds(value: float) -> Duration:
    """A number of seconds as a ``keep_alive`` duration: a negative one is for ever, as is one that
    no duration holds."""
    return int(value * SECOND) if 0 <= value < FOREVER / SECOND else FOREVER


def _quoted(text: str) -> str:
    """A text as errors about durations show it: every byte outside of ASCII's printable as it is."""
    shown = (
        f"\\{chr(byte)}"
        if byte in b'"\\'
        else chr(byte)
        if 0x20 <= byte < 0x80
        else f"\\x{byte:02x}"
        for byte in text.encode()
    )
    return f'"{"".join(shown)}"'


def quote(text: str) -> str:
    """A string in Go's ``%q`` form, as far as error texts need it."""
    out = []
    for char in text:
        if char in '"\\':
            out.append("\\" + char)
        elif char.isprintable():
            out.append(char)
        elif char in _ESCAPES:
            out.append(_ESCAPES[char])
        elif ord(char) < 0x80:
            out.append(f"\\x{ord(char):02x}")
        else:
            out.append(f"\\u{ord(char):04x}" if ord(char) < 0x10000 else f"\\U{ord(char):08x}")
    return '"' + "".join(out) + '"'


_ESCAPES = {
    "\a": "\\a",
    "\b": "\\b",
    "\f": "\\f",
    "\n": "\\n",
    "\r": "\\r",
    "\t": "\\t",
    "\v": "\\v",
}


def _decimal(value: int, unit: int) -> str:
    whole, rest = divmod(value, unit)
    if not rest:
        return str(whole)
    return f"{whole}." + str(rest).zfill(len(str(unit)) - 1).rstrip("0")
