"""Times on Ollama's wire: RFC 3339, nanoseconds with trailing zeros trimmed, UTC as ``Z``."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta, timezone

from lhama.daemon.durations import SECOND

LAST = int(datetime(9999, 12, 31, tzinfo=UTC).timestamp()) * SECOND
"""Latest time that can be written, in nanoseconds since 1970."""

_second = -1
_text = ""


def utc(ns: int) -> str:
    """A time in UTC. Calls within one second share the formatting of all but the fraction."""
    global _second, _text
    seconds, fraction = divmod(ns, SECOND)
    if seconds != _second:
        _text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
        _second = seconds
    return f"{_text}{_fraction(fraction)}Z"


def now() -> str:
    return utc(time.time_ns())


def local(ns: int) -> str:
    """A time with this machine's offset (``modified_at``, ``expires_at``)."""
    seconds, fraction = divmod(min(ns, LAST), SECOND)
    offset = time.localtime(min(seconds, 2**31 - 1)).tm_gmtoff
    zone = timezone(timedelta(seconds=offset))
    moment = datetime.fromtimestamp(seconds, zone)
    sign, minutes = ("-", -offset // 60) if offset < 0 else ("+", offset // 60)
    suffix = f"{sign}{minutes // 60:02d}:{minutes % 60:02d}" if offset else "Z"
    return f"{moment:%Y-%m-%dT%H:%M:%S}{_fraction(fraction)}{suffix}"


def _fraction(ns: int) -> str:
    return f".{ns:09d}".rstrip("0") if ns else ""
