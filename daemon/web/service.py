"""What handlers work with, found on the application under one typed key."""

from __future__ import annotations

from dataclasses import dataclass, field

from aiohttp import web

from lhama.daemon.config import Settings
from lhama.daemon.registry import RegistryClient
from lhama.daemon.scheduler import Scheduler
from lhama.daemon.store import Store
from lhama.daemon.web.lifecycle import Lifecycle
from lhama.daemon.web.usage import Usage
from lhama.daemon.worker import Worker


@dataclass(frozen=True, slots=True)
class Service:
    """The rooms below the web."""

    settings: Settings
    store: Store
    scheduler: Scheduler
    registry: RegistryClient
    worker: Worker
    usage: Usage = field(default_factory=Usage)
    lifecycle: Lifecycle = field(default_factory=Lifecycle)


SERVICE: web.AppKey[Service] = web.AppKey("service", Service)
