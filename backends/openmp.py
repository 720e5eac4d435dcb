"""How engines built on GNU OpenMP share cores with others."""

from __future__ import annotations

import os

SPIN = 1000
"""Turns a thread spins at a barrier before it sleeps: some microseconds."""


def spin_briefly() -> None:
    """Say so to OpenMP; call before the engine's library is loaded. A user's own setting stands.

    Left alone, threads spin for milliseconds, which takes the core from whoever else wants it: other
    models, the daemon, the client. The price is a few per cent where nobody else does.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", str(SPIN))
