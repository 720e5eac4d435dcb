"""How the command line prints: tables, sizes, times and progress, as Ollama's does."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.progress import Progress

GAP = "    "
"""Between columns."""

_FOREVER_YEARS = 20
_NANOSECONDS = 1e9


def say(text: str = "", end: str = "\n") -> None:
    """Write to standard output."""
    sys.stdout.write(text + end)
    sys.stdout.flush()


def note(text: str) -> None:
    """Write to standard error: what is not part of the answer."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def obeys(stream: TextIO) -> bool:
    """Whether a stream is a terminal that moves its cursor when told to."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def passing(text: str) -> None:
    """Show a line on standard error in place of the one before; only where that is a terminal."""
    if obeys(sys.stderr):
        sys.stderr.write(f"\r\x1b[K{text}")
        sys.stderr.flush()


def table(header: Sequence[str], rows: Iterable[Sequence[str]], indent: str = "") -> str:
    """Left-aligned columns under their header; an empty header is left out."""
    lines = [*([header] if header else []), *rows]
    if not lines:
        return ""
    columns = max(len(line) for line in lines)
    widths = [max(len(line[c]) for line in lines if c < len(line)) for c in range(columns)]
    padded = ([c.ljust(w) for c, w in zip(line, widths, strict=False)] for line in lines)
    return "\n".join((indent + GAP.join(cells)).rstrip() for cells in padded)


def size(count: int) -> str:
    """Bytes in decimal units, one decimal below ten: ``98 MB``, ``2.0 GB`` as ``2 GB``."""
    for exponent, unit in ((4, "TB"), (3, "GB"), (2, "MB"), (1, "KB")):
        if count >= 1000**exponent:
            value = count / 1000**exponent
            whole = value >= 10 or value == int(value)
            return f"{int(value)} {unit}" if whole else f"{value:.1f} {unit}"
    return f"{count} B"


def moment(text: str, *, now: datetime | None = None) -> str:
    """An RFC 3339 time as seen from now: ``2 hours ago``, ``4 minutes from now``, ``Forever``."""
    if not text or text.startswith("0001-"):
        return "Never"
    then = datetime.fromisoformat(text)
    seconds = ((now or datetime.now(UTC)) - then).total_seconds()
    if -seconds > _FOREVER_YEARS * 365 * 86400:
        return "Forever"
    return f"{_span(abs(seconds))} {'ago' if seconds > 0 else 'from now'}"


def has_passed(text: str) -> bool:
    return datetime.fromisoformat(text) < datetime.now(UTC)


def _span(seconds: float) -> str:
    minutes, hours = int(seconds // 60), round(seconds / 3600)
    if seconds < 1:
        return "Less than a second"
    if seconds < 60:
        return "1 second" if seconds < 2 else f"{int(seconds)} seconds"
    if minutes < 60:
        return "About a minute" if minutes == 1 else f"{minutes} minutes"
    if hours < 48:
        return "About an hour" if hours == 1 else f"{hours} hours"
    for most, length, unit in ((14, 1, "days"), (60, 7, "weeks"), (730, 30, "months")):
        if hours < most * 24:
            return f"{hours // 24 // length} {unit}"
    return f"{hours // 24 // 365} years"


def rate(count: int, nanoseconds: int) -> str:
    """Tokens per second; a dash where there was no time."""
    return f"{count / nanoseconds * _NANOSECONDS:.2f} tokens/s" if nanoseconds > 0 else "-"


@contextmanager
def progress() -> Iterator[Progress]:
    """Bars on standard error, for bytes; nothing where that is no terminal."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as bars:
        yield bars


class Waiting:
    """A spinner on standard error while nothing else is printed; silent where it is no terminal."""

    def __init__(self, text: str) -> None:
        self._shown = False
        self._spinner = None
        if sys.stderr.isatty():
            from rich.console import Console

            self._spinner = Console(stderr=True).status(text)

    def __enter__(self) -> Waiting:
        if self._spinner and not self._shown:
            self._spinner.start()
            self._shown = True
        return self

    def update(self, text: str) -> None:
        if self._spinner:
            self._spinner.update(text)

    def note(self, text: str) -> None:
        """Print a line above the spinner."""
        if self._spinner:
            self._spinner.console.print(text, highlight=False, markup=False, soft_wrap=True)
        else:
            note(text)

    def stop(self) -> None:
        """Take the spinner away; harmless if it is gone."""
        if self._spinner and self._shown:
            self._spinner.stop()
            self._shown = False

    def __exit__(self, *_: object) -> None:
        self.stop()
