"""The one place that imports llama.cpp, and numpy after it.

Some CUDA builds of llama.cpp crash inside the tokenizer when numpy was imported first, so every
module of this backend takes both from here.
"""

from __future__ import annotations

import ctypes
import logging
from collections import deque
from collections.abc import Callable
from functools import lru_cache
from typing import Any

# isort: off
import llama_cpp  # loads the shared library
import numpy as np
# isort: on

__all__ = ["L", "Log", "log", "logits_address", "np"]

L: Any = llama_cpp.llama_cpp
"""llama.cpp's C functions under their own names."""

logits_address: Any = L._lib["llama_get_logits"]
"""``llama_get_logits`` that returns a number: making a pointer object each step takes longer."""
logits_address.argtypes = [ctypes.c_void_p]
logits_address.restype = ctypes.c_void_p

_logger = logging.getLogger("lhama.llamacpp")
_ERROR, _CONTINUED = 4, 5  # of enum ggml_log_level


class Log:
    """Catches llama.cpp's log: keeps the last errors, forwards every line to ``logging``."""

    def __init__(self) -> None:
        self.listener: Callable[[bytes], None] | None = None
        """Is told every piece of a line."""
        self._errors: deque[str] = deque(maxlen=8)
        self._level = 0
        self.callback = L.llama_log_callback(self._receive)
        """For libraries beside llama.cpp that log the same way."""

    def install(self) -> None:
        L.llama_log_set(self.callback, ctypes.c_void_p(0))

    def clear(self) -> None:
        self._errors.clear()

    def errors(self) -> str:
        """What went wrong since ``clear``, in llama.cpp's words; empty if it said nothing."""
        return "; ".join(line.strip() for line in self._errors if line.strip())

    def _receive(self, level: int, text: bytes, _user_data: object) -> None:
        if self.listener is not None:
            self.listener(text)
        if level != _CONTINUED:
            self._level = level
        if self._level == _ERROR:
            line = text.decode("utf-8", "replace")
            if level == _CONTINUED and self._errors:
                self._errors[-1] += line
            else:
                self._errors.append(line)
        if _logger.isEnabledFor(logging.DEBUG):
            _logger.debug("%s", text.decode("utf-8", "replace").rstrip())


@lru_cache(maxsize=1)
def log() -> Log:
    """The process's log, installed; llama.cpp is initialised on the first call."""
    catcher = Log()
    catcher.install()
    L.llama_backend_init()
    return catcher
