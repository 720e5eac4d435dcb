"""What the scheduler keeps: models that are loaded, and requests that wait for one."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

from lhama.daemon.errors import LoadError
from lhama.daemon.scheduler.lease import Lease
from lhama.daemon.scheduler.placement import LoadRequest
from lhama.daemon.scheduler.planning import Plan
from lhama.daemon.scheduler.runner import Runner
from lhama.daemon.store.model import StoredModel
from lhama.daemon.wire.messages import Observed


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """One line of ``/api/ps``. Sizes in bytes, time in Unix nanoseconds."""

    model: StoredModel
    size: int
    size_vram: int
    context: int
    slots: int
    expires_at: int
    backend: str
    reason: str
    """Why this backend, in its words; empty if it gave none."""
    device: str
    pipeline: str
    notes: tuple[str, ...]
    """What the backend has to say of how it runs the model."""


@dataclass(frozen=True, slots=True)
class Observation:
    """A loaded model and what its runner says of its assembly line."""

    loaded: LoadedModel
    line: Observed


@dataclass(eq=False)
class Want:
    """A request that waits for a runner."""

    key: str
    """The weights file's path: a runner's identity."""
    model: StoredModel
    request: LoadRequest
    keep_alive: int | None
    since_ns: int
    answer: asyncio.Future[Lease]
    plan: Plan | None = None
    """How it would be loaded; made when it has to be, since it takes reading headers."""
    retried: bool = False
    """A load ran out of memory once: it is tried again with more room, and no further time."""
    most_context: int | None = None
    """What that left of a context nobody asked for."""
    passed_over: dict[str, LoadError] = field(default_factory=dict)
    """Backends that ran out of memory in spite of it, in turn."""


@dataclass(eq=False)
class Entry:
    """A loaded model and who uses it."""

    plan: Plan
    runner: Runner
    keep_alive: int
    users: int = 0
    used_ns: int = field(default_factory=time.time_ns)
    expiring: bool = False
    """It goes as soon as it is idle, whatever its keep-alive says."""
    timer: asyncio.TimerHandle | None = None

    @property
    def leaving(self) -> bool:
        """It has to go, and nobody uses it any more."""
        return self.expiring and not self.users

    def described(self) -> LoadedModel:
        """What it is now; its runner has said what it loaded."""
        loaded = self.runner.loaded
        assert loaded is not None
        return LoadedModel(
            model=self.plan.model,
            size=loaded.total_bytes,
            size_vram=loaded.device_bytes,
            context=self.plan.num_ctx,
            slots=loaded.slots,
            expires_at=self.used_ns + self.keep_alive,  # for ever: in 292 years
            backend=self.plan.message.backend,
            reason=self.plan.reason,
            device=loaded.device,
            pipeline=loaded.pipeline,
            notes=tuple(loaded.notes),
        )
