"""Which process may write to a store: one at a time, for as long as it lives."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from filelock import FileLock, Timeout

from lhama.daemon.errors import StoreError

LOCK_FILE: Final = ".lhama.lock"
OWNER_FILE: Final = ".lhama.pid"


class Ownership:
    """A lock that the kernel takes back from a dead process, and a note of who holds it."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._note = root / OWNER_FILE
        self._lock = FileLock(root / LOCK_FILE, timeout=0, thread_local=False)

    def take(self) -> None:
        """Raises ``StoreError`` that names the owner if there is one, ``OSError`` if none can be."""
        try:
            self._lock.acquire()
        except Timeout:
            raise StoreError(
                f"the model store {self._root} is in use by another lhama{self._owner()}: "
                "stop that one, or set OLLAMA_MODELS to another folder"
            ) from None
        self._note.write_text(f"{os.getpid()}\n")

    def give_up(self) -> None:
        """Without effect if it was not taken."""
        if self._lock.is_locked:
            self._note.unlink(missing_ok=True)
            self._lock.release()

    def _owner(self) -> str:
        try:
            return f" (pid {int(self._note.read_text())})"
        except (OSError, ValueError):
            return ""
