"""``/health/live`` and ``/health/ready``, for whatever watches the daemon.

Alive means that it moves, not that its port is open: both ask the scheduler's loop. Ready means that
a request sent now would be taken.
"""

from __future__ import annotations

import asyncio

from aiohttp import web

from lhama.daemon.web.replies import json_reply
from lhama.daemon.web.service import SERVICE, Service

PATHS = ("/health", "/health/live", "/health/ready")
"""Answered without a key and while the daemon drains."""

PATIENCE = 5.0
"""Seconds the scheduler's loop may take to say something; it never waits for anything itself."""


async def live(request: web.Request) -> web.Response:
    stuck = await stuck_loop(request.app[SERVICE])
    return _reply([stuck] if stuck else [], good="live", bad="stuck")


async def ready(request: web.Request) -> web.Response:
    return _reply(await obstacles(request.app[SERVICE]), good="ready", bad="not ready")


async def obstacles(service: Service) -> list[str]:
    """What keeps requests from being answered now; nothing: all is well."""
    found = ["the server is shutting down"] if service.lifecycle.draining else []
    if stuck := await stuck_loop(service):
        found.append(stuck)
    return [*found, *service.scheduler.troubles()]


async def stuck_loop(service: Service) -> str:
    """Empty, or that the scheduler does not move."""
    try:
        await asyncio.wait_for(service.scheduler.pulse(), PATIENCE)
    except TimeoutError:
        return f"the scheduler has not moved for {PATIENCE:.0f} seconds"
    return ""


def _reply(reasons: list[str], *, good: str, bad: str) -> web.Response:
    if not reasons:
        return json_reply({"status": good})
    return json_reply({"status": bad, "reasons": reasons}, status=503)
