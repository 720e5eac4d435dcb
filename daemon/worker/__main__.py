"""Entry of the worker process: ``python -P -m lhama.daemon.worker PARENT``.

The order comes as msgpack on standard input, progress and outcome leave as frames on what was
standard output. Exit status 0: the outcome was said, whatever it is.
"""

from __future__ import annotations

import errno
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from lhama.daemon.lifeline import die_with_parent
from lhama.daemon.wire import codec
from lhama.daemon.worker.jobs import (
    Conversion,
    Finished,
    FromWorker,
    Order,
    Quantization,
    Refused,
    Share,
)
from lhama.plugins.backend import BackendError
from lhama.plugins.manager import PluginManager

REPORT_SECONDS: Final = 0.05
"""Progress is told no more often than this."""

FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
PROBE: Final = b"\0" * (1 << 16)


def main() -> None:
    die_with_parent(int(sys.argv[1]))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a dump would hold what the model's file held
    die_first()
    frames = os.dup(1)
    os.dup2(2, 1)  # native code prints as it likes
    order = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=Order)
    say = Speaker(frames)
    try:
        do(order, say)
    except Exception as error:  # whatever a plugin raises: the daemon reports it in words
        say(refusal(error, order.job.target))
    else:
        say(Finished())


def die_first() -> None:
    """Where memory runs out, be what the kernel kills: a file may ask for more than there is."""
    try:
        Path("/proc/self/oom_score_adj").write_text("1000")
    except OSError:
        pass  # not Linux


def do(order: Order, say: Callable[[FromWorker], None]) -> None:
    """Find the tool and let it work. Raises what the tool raises."""
    registry = PluginManager().discover(order.blocked_plugins, tried=True)
    job, told = order.job, 0.0

    def progress(share: float, note: str) -> None:
        nonlocal told
        if (now := time.monotonic()) - told >= REPORT_SECONDS:
            told = now
            say(Share(min(max(share, 0.0), 1.0)))

    if isinstance(job, Quantization):
        registry.quantizers[order.tool].quantize(job.source, job.target, job.kind, progress)
        return
    converter = registry.converters[order.tool]
    if isinstance(job, Conversion):
        converter.convert(job.folder, job.target, progress)
    else:
        converter.convert_adapter(job.folder, job.base, job.target, progress)


def refusal(error: Exception, target: str) -> Refused:
    """What went wrong, in words."""
    number = (error.errno if isinstance(error, OSError) else None) or _disk_errno(target)
    known = isinstance(error, BackendError)
    message = str(error) if known else f"{type(error).__name__}: {error}"
    return Refused(message, number if number in FULL else 0)


def _disk_errno(target: str) -> int:
    """Whether the disk takes no more: llama.cpp and numpy do not say why a write failed."""
    try:
        with open(target, "ab") as file:
            file.write(PROBE)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return error.errno or 0
    return 0


class Speaker:
    """Writes frames. The daemon reads all along, so a full pipe lasts for a moment only."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def __call__(self, message: FromWorker) -> None:
        rest = memoryview(codec.encode(message))
        while rest:
            rest = rest[os.write(self._fd, rest) :]


if __name__ == "__main__":
    main()
