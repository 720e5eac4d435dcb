"""File descriptors: as many as the system allows, and some kept back for the daemon's own work."""

from __future__ import annotations

import resource

RESERVE = 64
"""Kept for models to be loaded and files to be read when clients take all the others."""


def raise_limit() -> None:
    """Take all that may be had without asking: the usual soft limit of 1,024 is one for programs
    that call ``select``."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (ValueError, OSError):
            pass  # macOS has a limit below its hard limit; what there is will do


def for_connections() -> int:
    """How many connections there may be at once; the limit may change while the daemon runs."""
    return max(resource.getrlimit(resource.RLIMIT_NOFILE)[0] - RESERVE, 1)
