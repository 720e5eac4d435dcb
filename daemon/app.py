"""The composition root: settings in, a serving daemon out."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing, contextmanager

import structlog
from aiohttp import web

from lhama.daemon import listener, logs
from lhama.daemon.config import Settings
from lhama.daemon.registry import RegistryClient
from lhama.daemon.scheduler import Scheduler
from lhama.daemon.store import Store
from lhama.daemon.web import access, application
from lhama.daemon.web.service import SERVICE, Service
from lhama.plugins import manager
from lhama.plugins.registry import Registry

log = structlog.get_logger(__name__)

IDLE_TIMEOUT = 75.0
"""Seconds a connection may take for a request's headers, and stay silent between requests."""

LINGER = 10.0
"""Seconds in which the rest of a refused body is read and dropped, so that the client reads on."""

BACKLOG = 1024


def run(settings: Settings, ready: Callable[[Settings], None] | None = None) -> None:
    """Serve until SIGTERM or Ctrl-C, on uvloop where there is one."""
    try:
        import uvloop
    except ImportError:  # no wheel for this platform
        asyncio.run(serve(settings, ready))
    else:
        uvloop.run(serve(settings, ready))


async def serve(settings: Settings, ready: Callable[[Settings], None] | None = None) -> None:
    """Serve until a signal comes. ``ready`` is told the settings with the port that was bound.

    Raises ``LhamaError`` where the daemon cannot start: port taken, store locked …
    """
    logs.configure(settings)
    with closing(listener.bind(settings)) as bound, _signals() as stop:
        settings = dataclasses.replace(settings, port=bound.getsockname()[1])
        server = await start(settings, bound)
        try:
            _announce(settings)
            if ready is not None:
                ready(settings)
            await stop.wait()
            log.info("stopping: no new requests, running ones may finish")
        finally:
            await server.cleanup()
    log.info("stopped")


async def start(settings: Settings, bound: socket.socket) -> web.AppRunner:
    """Start answering on a bound socket; ``cleanup`` of the result ends it, requests first."""
    server = web.AppRunner(
        build(settings),
        access_log=None,
        handler_cancellation=True,  # a client that goes takes its generation with it
        keepalive_timeout=IDLE_TIMEOUT,
        lingering_time=LINGER,
        auto_decompress=False,  # Ollama does not either, and a small body may be a bomb
        shutdown_timeout=settings.shutdown_grace / 1e9,
    )
    try:
        await server.setup()
        await web.SockSite(server, bound, backlog=BACKLOG).start()
    except BaseException:
        await server.cleanup()
        raise
    return server


def build(settings: Settings, registry: Registry | None = None) -> web.Application:
    """The application with everything behind it, nothing of it started."""
    if registry is None:
        registry = discover(settings)
    store = Store(settings.models, prune=not settings.no_prune, go_template=settings.go_template)
    app = application.build(
        Service(settings, store, Scheduler(settings, registry), RegistryClient(settings, store))
    )
    app.cleanup_ctx.append(_rooms)
    return app


def discover(settings: Settings) -> Registry:
    """The backends of all plugins that are not left out."""
    registry = manager.discover(settings.blocked_plugins)
    for report in registry.reports:
        if report.state == "failed":
            log.warning("plugin failed", plugin=report.name, error=report.error)
    return registry


async def _rooms(app: web.Application) -> AsyncIterator[None]:
    """The store is ours and the scheduler runs while the application does."""
    service = app[SERVICE]
    await asyncio.to_thread(service.store.open)
    try:
        await service.scheduler.start()
        yield
        await service.scheduler.close()
    finally:
        service.store.close()


@contextmanager
def _signals() -> Iterator[asyncio.Event]:
    """An event set by the first SIGTERM or Ctrl-C; the second one ends the process at once."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()

    def on_signal() -> None:
        if stop.is_set():
            log.warning("stopped at once by a second signal")
            os._exit(1)  # runners notice the closed wire and go, too
        stop.set()

    numbers = (signal.SIGTERM, signal.SIGINT)
    for number in numbers:
        loop.add_signal_handler(number, on_signal)
    try:
        yield stop
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


def _announce(settings: Settings) -> None:
    for warning in settings.warnings:
        log.warning("setting", problem=warning)
    if not access.is_loopback(settings.host):
        log.warning("everyone who reaches this address may use it: there is no password")
    log.info("listening", url=settings.url, models=str(settings.models))
