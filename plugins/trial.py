"""Loads plugins in a process of their own first, so that none takes the daemon along.

An exception can be caught; an exit, a crash in native code or an import without end cannot. So
whatever does not come with lhama is loaded by ``python -P -m lhama.plugins.trial NAME VALUE`` before
the daemon does it, all plugins at once.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from importlib.metadata import EntryPoint

LOAD_SECONDS = 10.0
"""What loads longer is left out."""

LOADED, RAISED = 80, 81
"""Exit statuses that no accident has. What raises is loaded once more, to tell what it said."""


def verdicts(points: Iterable[EntryPoint]) -> dict[EntryPoint, str]:
    """What speaks against loading each plugin here; empty: nothing."""
    # What this process can import the other can, too.
    paths = os.pathsep.join(path for path in sys.path if path)
    deadline = time.monotonic() + LOAD_SECONDS
    begun = [(point, _begin(point, os.environ | {"PYTHONPATH": paths})) for point in points]
    return {point: _verdict(process, deadline) for point, process in begun}


def _begin(point: EntryPoint, environment: dict[str, str]) -> subprocess.Popen[bytes] | OSError:
    command = [sys.executable, "-P", "-m", __name__, point.name, point.value]
    nowhere = subprocess.DEVNULL
    try:
        return subprocess.Popen(
            command, env=environment, stdin=nowhere, stdout=nowhere, stderr=nowhere
        )
    except OSError as error:
        return error


def _verdict(process: subprocess.Popen[bytes] | OSError, deadline: float) -> str:
    if isinstance(process, OSError):
        return f"it could not be tried: {process}"
    try:
        status = process.wait(max(deadline - time.monotonic(), 0))
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return f"it did not load within {LOAD_SECONDS:g} s"
    if status < 0:
        return f"loading it ended the process by {signal.Signals(-status).name}"
    if status not in (LOADED, RAISED):
        return f"loading it ended the process with status {status}"
    return ""


def main() -> None:
    from lhama.plugins.manager import PluginManager, entry_point

    try:
        PluginManager().load(entry_point(*sys.argv[1:3]))
    except BaseException:
        os._exit(RAISED)
    os._exit(LOADED)


if __name__ == "__main__":
    main()
