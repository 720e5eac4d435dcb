"""How transfers behave: in which pieces, how patient, and what comes after a failure."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass

from lhama.daemon.errors import RegistryError
from lhama.daemon.registry.failures import Passing
from lhama.daemon.registry.remote import ANSWER_SECONDS
from lhama.daemon.store.partial import SMALLEST_PART


@dataclass(frozen=True, slots=True)
class Manner:
    """How transfers behave; the defaults are Ollama's, where it has the same thing."""

    parallel: int = 16
    """Parts of one blob under way at once."""
    smallest_part: int = SMALLEST_PART
    silence: float = 30.0
    """Seconds without a byte after which a part is asked for again."""
    standstill: float = ANSWER_SECONDS
    """Seconds in which a registry takes no byte of a part, or does not say that it has it all, after
    which the part is sent again. Longer than ``silence``: sixteen parts share a slow line."""
    tries: int = 6
    """Failures in a row, without one byte in between, after which a part is given up."""
    pause: float = 1.0
    """Seconds before the second try; doubled before each further one."""
    longest_pause: float = 120.0
    """A registry that wants to be left alone (``Retry-After``) for longer is not tried again."""
    save_bytes: int = 8 << 20
    save_seconds: float = 1.0
    """What a crash costs at most: what arrives between two checkpoints."""

    def backoff(self, failures: int) -> float:
        """Seconds to wait after so many failures, spread so that parts do not return together."""
        return self.pause * 2.0 ** (failures - 1) * random.uniform(0.5, 1.0)


DEFAULT_MANNER = Manner()


class Tries:
    """What one part has tried."""

    def __init__(self, manner: Manner) -> None:
        self._manner = manner
        self._failures = 0

    async def again(self, error: Passing, *, moved: bool = False) -> None:
        """Wait until another try makes sense. ``moved``: the last one brought some bytes.

        Raises ``RegistryError`` where it makes none: after too many, or too far off.
        """
        self._failures = 1 if moved else self._failures + 1
        if self._failures >= self._manner.tries:
            raise RegistryError(f"max retries exceeded: {error.message}") from error
        if error.after > self._manner.longest_pause:
            raise RegistryError(f"{error.message} (Retry-After: {error.after:.0f})") from error
        await asyncio.sleep(max(error.after, self._manner.backoff(self._failures)))
