"""The composition root: settings in, a serving daemon out."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import signal
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing, contextmanager

import structlog
from aiohttp import web

from lhama.daemon import descriptors, durations, garbage, listener, logs, tls
from lhama.daemon.config import Settings
from lhama.daemon.errors import LhamaError
from lhama.daemon.notify import Notifier
from lhama.daemon.registry import RegistryClient
from lhama.daemon.scheduler import Scheduler
from lhama.daemon.store import Store
from lhama.daemon.web import access, application, health
from lhama.daemon.web.service import SERVICE, Service
from lhama.daemon.worker import Worker
from lhama.plugins import manager
from lhama.plugins.registry import Registry

log = structlog.get_logger(__name__)

IDLE_TIMEOUT = 75.0
"""Seconds a connection may take for a request's headers, and stay silent between requests."""

LINGER = 10.0
"""Seconds in which the rest of a refused body is read and dropped, so that the client reads on."""

CLOSING = 2.0
"""Seconds that last words may take to reach their clients once everything has ended."""

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
    descriptors.raise_limit()
    secured = tls.context(settings)
    with closing(listener.bind(settings)) as bound, _signals(_renewal(secured, settings)) as stop:
        settings = dataclasses.replace(settings, port=bound.getsockname()[1])
        server = await start(settings, bound, secured)
        try:
            garbage.settle()
            _announce(settings)
            if ready is not None:
                ready(settings)
            with _watched(server.app[SERVICE]) as notify:
                notify("READY=1", f"STATUS=listening on {settings.url}")
                await stop.wait()
                notify("STOPPING=1", "STATUS=finishing what runs")
                await drain(server.app[SERVICE])
        finally:
            await server.cleanup()
    log.info("stopped")


@contextmanager
def _watched(service: Service) -> Iterator[Notifier]:
    """Tell systemd, where it is there, that the scheduler moves and no runner refuses to die."""

    async def well() -> bool:
        return not await health.stuck_loop(service) and not service.scheduler.condemned

    notify = Notifier()
    beating = asyncio.create_task(notify.beat(well))
    try:
        yield notify
    finally:
        beating.cancel()


async def drain(service: Service) -> None:
    """Refuse new requests, let running ones finish, and end those that take too long in words."""
    log.info("stopping: no new requests, running ones may finish")
    lifecycle, grace = service.lifecycle, service.settings.shutdown_grace
    if not await lifecycle.drain(grace / 1e9):
        log.warning(
            "requests are cut off", count=lifecycle.answering, after=durations.render(grace)
        )
        await service.scheduler.close()


async def start(
    settings: Settings, bound: socket.socket, secured: ssl.SSLContext | None = None
) -> web.AppRunner:
    """Start answering on a bound socket; ``cleanup`` of the result ends it, requests first."""
    server = web.AppRunner(
        build(settings),
        access_log=None,
        handler_cancellation=True,  # a client that goes takes its generation with it
        keepalive_timeout=IDLE_TIMEOUT,
        lingering_time=LINGER,
        auto_decompress=False,  # Ollama does not either, and a small body may be a bomb
        shutdown_timeout=CLOSING,
    )
    open_now = server.app[SERVICE].lifecycle
    open_now.connections = lambda: len(server.server.connections) if server.server else 0
    try:
        await server.setup()
        await web.SockSite(server, bound, ssl_context=secured, backlog=BACKLOG).start()
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
        Service(
            settings,
            store,
            Scheduler(settings, registry),
            RegistryClient(settings, store),
            Worker(settings, registry),
        )
    )
    app.cleanup_ctx.append(_rooms)
    return app


def discover(settings: Settings) -> Registry:
    """The backends of all plugins that are not left out."""
    registry = manager.discover(settings.blocked_plugins)
    for report in registry.reports:
        if report.state == "failed":
            log.warning("plugin failed", plugin=report.name, error=report.error)
        for text in report.warnings:
            log.warning("plugin", plugin=report.name, warning=text)
    if settings.backend and settings.backend not in registry.backends:
        log.warning("no model can be run", reason=registry.no_such_backend(settings.backend))
    return registry


async def _rooms(app: web.Application) -> AsyncIterator[None]:
    """The store is ours and the scheduler runs while the application does."""
    service = app[SERVICE]
    await asyncio.to_thread(service.store.open)
    try:
        await service.scheduler.start()
        yield
        await service.registry.close()
        await service.scheduler.close()
    finally:
        service.store.close()


def _renewal(secured: ssl.SSLContext | None, settings: Settings) -> Callable[[], None] | None:
    """What reads a renewed certificate, where there is one."""
    if secured is None:
        return None

    def renew() -> None:
        try:
            tls.load(secured, settings)
        except LhamaError as error:
            log.error("certificate not renewed, the old one stays", problem=error.message)
        else:
            log.info("certificate read again", file=str(settings.tls_cert))

    return renew


@contextmanager
def _signals(on_hangup: Callable[[], None] | None) -> Iterator[asyncio.Event]:
    """An event set by the first SIGTERM or Ctrl-C; the second one ends the process at once.

    ``on_hangup`` is called for SIGHUP.
    """
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()

    def on_signal() -> None:
        if stop.is_set():
            log.warning("stopped at once by a second signal")
            os._exit(1)  # runners notice the closed wire and go, too
        stop.set()

    handlers = {signal.SIGTERM: on_signal, signal.SIGINT: on_signal}
    if on_hangup is not None:
        handlers[signal.SIGHUP] = on_hangup
    for number, handler in handlers.items():
        loop.add_signal_handler(number, handler)
    try:
        yield stop
    finally:
        for number in handlers:
            loop.remove_signal_handler(number)


def _announce(settings: Settings) -> None:
    for warning in settings.warnings:
        log.warning("setting", problem=warning)
    if not access.is_loopback(settings.host):
        # Refusing to start would break every container that sets OLLAMA_HOST=0.0.0.0.
        if not settings.api_keys:
            log.warning(
                "EVERYONE WHO REACHES THIS ADDRESS MAY USE IT, AND DELETE ITS MODELS: "
                "set LHAMA_API_KEYS, or bind to 127.0.0.1",
                address=settings.address,
            )
        elif settings.tls_cert is None:
            log.warning("API keys travel unencrypted: set LHAMA_TLS_CERT and LHAMA_TLS_KEY")
    log.info("listening", url=settings.url, models=str(settings.models))
