"""GGUF headers, read once while their files do not change."""

from __future__ import annotations

import threading
from collections import OrderedDict
from pathlib import Path
from typing import Final

from lhama.plugins import gguf
from lhama.plugins.gguf import GGUF

_MOST: Final = 64


class HeaderCache:
    """The headers used last, without their vocabularies. May be used from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._headers: OrderedDict[tuple[str, int, int], GGUF] = OrderedDict()

    def read(self, path: Path) -> GGUF:
        """Raises ``GGUFError`` and ``OSError``."""
        status = path.stat()
        key = (str(path), status.st_mtime_ns, status.st_size)
        with self._lock:
            if key in self._headers:
                self._headers.move_to_end(key)
                return self._headers[key]
        header = gguf.read(path)
        with self._lock:
            self._headers[key] = header
            while len(self._headers) > _MOST:
                self._headers.popitem(last=False)
        return header
