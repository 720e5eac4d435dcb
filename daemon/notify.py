"""What systemd is told: ready, stopping, and that there is progress (sd_notify(3))."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable, Mapping

BEATS = 3
"""Signs of life in the time after which systemd gives the daemon up."""


class Notifier:
    """Speaks to the socket in ``NOTIFY_SOCKET``; without one it says nothing."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        path = environ.get("NOTIFY_SOCKET", "")
        self._address = "\0" + path[1:] if path.startswith("@") else path
        wanted = environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        text = environ.get("WATCHDOG_USEC", "") if wanted else ""
        self.patience = int(text) / 1e6 if text.isascii() and text.isdigit() else 0.0
        """Seconds without a sign of life after which systemd ends the daemon; 0: it does not."""

    def __call__(self, *lines: str) -> None:
        if not self._address:
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as speaker:
            speaker.setblocking(False)  # who does not listen must not hold the daemon up
            try:
                speaker.sendto("\n".join(lines).encode(), self._address)
            except OSError:
                pass  # whoever started us has gone or sleeps, and nothing of ours depends on it

    async def beat(self, well: Callable[[], Awaitable[bool]]) -> None:
        """For ever: a sign of life each time that ``well`` says so, and none where it hangs."""
        while self._address and self.patience:
            if await well():
                self("WATCHDOG=1")
            await asyncio.sleep(self.patience / BEATS)
