"""A worker for tests that make models."""

from __future__ import annotations

from lhama.daemon.config import Settings
from lhama.daemon.worker import Worker
from lhama.plugins import manager


def worker() -> Worker:
    """With the tools of lhama's own plugins."""
    return Worker(Settings(), manager.discover())
