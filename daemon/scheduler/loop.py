"""The scheduler's loop: the one place that changes which models are loaded.

Everything else sends it events; it keeps no locks because nobody else writes its state. A model
is keyed by its weights file, so two names over one blob share a runner.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable, Coroutine

import psutil
import structlog

from lhama.daemon.config import Settings
from lhama.daemon.durations import FOREVER
from lhama.daemon.errors import Busy, LhamaError, LoadError, ShuttingDown
from lhama.daemon.scheduler.lease import Lease
from lhama.daemon.scheduler.placement import (
    Decision,
    LoadRequest,
    Resident,
    decide,
    lower_context,
)
from lhama.daemon.scheduler.planning import Plan, Planner
from lhama.daemon.scheduler.replies import Reply
from lhama.daemon.scheduler.runner import OutOfMemoryAtLoad, Runner
from lhama.daemon.scheduler.table import Entry, LoadedModel, Observation, Want
from lhama.daemon.store.model import StoredModel
from lhama.daemon.wire.messages import Observe, Observed
from lhama.plugins.backend import Support
from lhama.plugins.registry import Registry

log = structlog.get_logger(__name__)

OBSERVE_SECONDS = 2.0
"""How long a runner may take to say what it does: its wire is read by a thread of its own."""


class Scheduler:
    """Gives out leases on loaded models."""

    def __init__(self, settings: Settings, backends: Registry) -> None:
        self._settings = settings
        self._planner = Planner(settings, backends)
        self._entries: dict[str, Entry] = {}
        self._waiting: deque[Want] = deque()
        self._events: asyncio.Queue[Callable[[], None]] = asyncio.Queue()
        self._busy_with: asyncio.Task[None] | None = None
        """The load or unload under way: one at a time, the head of the queue blocks the rest."""
        self._loop: asyncio.Task[None] | None = None
        self.losses: Counter[str] = Counter()
        """Runners that ended unasked, by their cause."""

    # --------------------------------------------------------------------- for everybody: events in

    async def start(self) -> None:
        self._loop = asyncio.create_task(self._run(), name="scheduler")

    async def close(self) -> None:
        """Stop every runner; requests that wait or run are told why. Twice is as good as once."""
        if self._loop is not None:
            self._loop.cancel()
            await asyncio.gather(self._loop, return_exceptions=True)
        if self._busy_with is not None:
            self._busy_with.cancel()
            await asyncio.gather(self._busy_with, return_exceptions=True)
        for want in self._waiting:
            _refuse(want, ShuttingDown())
        stops = (entry.runner.stop(because=ShuttingDown()) for entry in self._entries.values())
        await asyncio.gather(*stops)
        self._entries.clear()

    async def lease(
        self, model: StoredModel, load: LoadRequest, keep_alive: int | None = None
    ) -> Lease:
        """A hold on the model, loaded as asked; ``keep_alive`` in ns replaces the runner's.

        Raises ``Busy``, ``LoadError`` and what the choice of a backend raises.
        """
        answer: asyncio.Future[Lease] = asyncio.get_running_loop().create_future()
        key = model.files().weights
        want = Want(key, model, load, keep_alive, time.monotonic_ns(), answer)
        self._post(lambda: self._on_want(want))
        try:
            return await answer
        except asyncio.CancelledError:
            self._post(lambda: self._on_abandoned(want))
            raise

    async def pulse(self) -> None:
        """Return once the loop has handled an event: it moves."""
        handled: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def moved() -> None:
            if not handled.done():
                handled.set_result(None)

        self._post(moved)
        await handled

    def troubles(self) -> list[str]:
        """Runners that seem to hang, and accelerators that are gone, in words."""
        doubts = ((e.plan.model.name.short, e.runner.doubt) for e in self._entries.values())
        hanging = [f"the runner of {model} {doubt}" for model, doubt in doubts if doubt]
        return [
            *hanging,
            *(f"the device {device} is gone" for device in sorted(self._planner.lost)),
        ]

    @property
    def condemned(self) -> bool:
        """Whether a runner was given up and is still there."""
        return any(entry.runner.condemned for entry in self._entries.values())

    async def unload(self, model: StoredModel) -> None:
        """Let the model go as soon as it is idle; returns at once."""
        self._post(lambda: self._on_unload(model.files().weights))

    def loaded(self) -> list[LoadedModel]:
        """What is loaded now and not on its way out, the one that stays longest first."""
        entries = [entry for entry in self._entries.values() if not entry.leaving]
        lines = [entry.described() for entry in entries if entry.runner.loaded is not None]
        return sorted(lines, key=lambda line: -line.expires_at)

    @property
    def queued(self) -> int:
        """Requests that wait for a model to be loaded."""
        return len(self._waiting)

    async def observe(self, steps: int = 0) -> list[Observation]:
        """What every loaded model's assembly line does, with its last ``steps`` steps. A runner
        that ends meanwhile, or does not answer, is left out."""

        async def one(entry: Entry) -> Observation | None:
            try:
                async with asyncio.timeout(OBSERVE_SECONDS):
                    line = await entry.runner.call(Observe(0, steps), Reply[Observed]())
            except (LhamaError, TimeoutError):
                return None
            return Observation(entry.described(), line)

        ready = [entry for entry in self._entries.values() if entry.runner.loaded is not None]
        found = await asyncio.gather(*map(one, ready))
        return [observation for observation in found if observation is not None]

    async def verdicts(self, model: StoredModel) -> list[tuple[str, Support]]:
        """What the backends say of a model, by name; the first would get it now."""
        return await asyncio.to_thread(self._planner.verdicts, model)

    def arrange(self, model: StoredModel, pipeline: str) -> bool:
        """Have a loaded model's line use another order; False if it is not loaded."""
        entry = self._entries.get(model.files().weights)
        if entry is not None:
            entry.runner.arrange(pipeline)
        return entry is not None

    def _post(self, event: Callable[[], None]) -> None:
        self._events.put_nowait(event)

    # ---------------------------------------------------------------------------- the single writer

    async def _run(self) -> None:
        while True:
            event = await self._events.get()
            try:
                event()
                self._advance()
            except Exception:  # a bug here must not end all service
                log.exception("scheduler event failed")

    def _on_want(self, want: Want) -> None:
        entry = self._entries.get(want.key)
        if entry is not None and self._serves(entry, want) and not self._queued(want.key):
            self._grant(entry, want)
        elif len(self._waiting) > self._settings.max_queue:  # the head has left Ollama's queue
            _refuse(want, Busy())
        else:
            self._waiting.append(want)

    def _on_abandoned(self, want: Want) -> None:
        if want in self._waiting:
            self._waiting.remove(want)
        elif want.answer.done() and not want.answer.cancelled() and not want.answer.exception():
            want.answer.result().release()

    def _on_release(self, entry: Entry) -> None:
        entry.users -= 1
        entry.used_ns = time.time_ns()
        self._restart_timer(entry)

    def _on_unload(self, key: str) -> None:
        if (entry := self._entries.get(key)) is not None:
            entry.keep_alive = 0
            self._restart_timer(entry)

    def _on_lost(self, runner: Runner) -> None:
        self.losses[runner.cause] += 1
        for entry in list(self._entries.values()):
            if entry.runner is runner:
                self._forget(entry)

    def _advance(self) -> None:
        """Make the room that was asked for, then serve the head of the queue."""
        if self._busy_with is not None or self._unload_expired():
            return
        while self._waiting:
            want = self._waiting[0]
            entry = self._entries.get(want.key)
            if want.answer.done():
                self._waiting.popleft()
            elif entry is not None and self._serves(entry, want):
                self._waiting.popleft()
                self._grant(entry, want)
            elif entry is not None:  # dying, or loaded with other options: it must go first
                entry.expiring = True
                break
            elif want.retried and self._entries:  # memory ran out: the others go, busy or not
                break
            elif want.plan is None:
                self._begin(self._plan(want))
                return
            elif (decision := self._decide(want.plan)).action == "load":
                self._begin(self._load(want, want.plan))
                return
            else:
                self._entries[decision.victim].expiring = True
                break
        self._unload_expired()

    def _unload_expired(self) -> bool:
        """Begin to unload one model that is idle and has to go, if there is one."""
        for entry in self._entries.values():
            if entry.leaving:
                self._begin(self._unload(entry))
                return True
        return False

    def _decide(self, plan: Plan) -> Decision:
        residents = [
            Resident(key, idle=not entry.users, keep_alive=entry.keep_alive)
            for key, entry in self._entries.items()
        ]
        most = self._settings.max_loaded_models or 3 * max(plan.accelerators, 1)
        free = plan.free_bytes if plan.accelerators else psutil.virtual_memory().available
        return decide(residents, plan.estimate.total_bytes, free, most)

    def _grant(self, entry: Entry, want: Want) -> None:
        if want.answer.done():
            return
        if entry.timer is not None:
            entry.timer.cancel()
        if want.keep_alive is not None:
            entry.keep_alive = want.keep_alive
        entry.users += 1
        entry.used_ns = time.time_ns()
        load_ns = time.monotonic_ns() - want.since_ns
        want.answer.set_result(
            Lease(
                entry.runner,
                entry.plan.num_ctx,
                load_ns,
                lambda: self._post(lambda: self._on_release(entry)),
            )
        )

    def _serves(self, entry: Entry, want: Want) -> bool:
        if entry.expiring or entry.runner.lost:
            return False
        plan = entry.plan
        return want.request.matches(
            plan.request, plan.default_context, plan.default_batch, plan.trained_context
        )

    def _queued(self, key: str) -> bool:
        return any(want.key == key for want in self._waiting)

    def _restart_timer(self, entry: Entry) -> None:
        if entry.timer is not None:
            entry.timer.cancel()
        if entry.users or self._entries.get(entry.plan.key) is not entry:
            return
        if entry.keep_alive <= 0:
            entry.expiring = True
        elif entry.keep_alive < FOREVER:
            loop = asyncio.get_running_loop()
            entry.timer = loop.call_later(
                entry.keep_alive / 1e9, lambda: self._post(lambda: self._on_expired(entry))
            )

    def _on_expired(self, entry: Entry) -> None:
        if not entry.users:
            entry.expiring = True

    def _forget(self, entry: Entry) -> None:
        if self._entries.get(entry.plan.key) is entry:
            del self._entries[entry.plan.key]
        for want in self._waiting:
            want.plan = None  # there is more memory now than it was made for
        if entry.timer is not None:
            entry.timer.cancel()

    # ---------------------------------------------------------------------- slow work, one at a time

    def _begin(self, work: Coroutine[None, None, Callable[[], None]]) -> None:
        """Do slow work beside the loop; what it returns is applied as an event."""

        async def run() -> None:
            try:
                after = await work
            except Exception:  # it answers its own failures: this is a bug, and must not block all
                log.exception("scheduler work failed")
                self._post(self._done)
            else:
                self._post(lambda: self._done(after))

        self._busy_with = asyncio.create_task(run())

    def _done(self, after: Callable[[], None] | None = None) -> None:
        """Slow work has ended. Its outcome is applied in the same event: nothing may be decided
        between the two, or what was loaded would be loaded again."""
        self._busy_with = None
        if after is not None:
            after()

    async def _plan(self, want: Want) -> Callable[[], None]:
        try:
            plan = await asyncio.to_thread(
                self._planner.plan,
                want.model,
                want.request,
                want.most_context,
                dict(want.passed_over),
            )
        except Exception as e:
            error = _as_load_error(e)
            return lambda: self._load_failed(want, error)

        def planned() -> None:
            want.plan = plan

        return planned

    async def _load(self, want: Want, plan: Plan) -> Callable[[], None]:
        runner = Runner(
            plan.model.name.short,
            lambda r: self._post(lambda: self._on_lost(r)),
            self._settings.step_timeout,
        )
        stall = self._settings.load_timeout / 1e9
        try:
            loaded = await runner.start(plan.message, stall)
        except Exception as e:
            error = _as_load_error(e)
            return lambda: self._load_failed(want, error)
        log.info(
            "model loaded",
            model=plan.model.name.short,
            backend=plan.message.backend,
            device=loaded.device,
            slots=loaded.slots,
            pipeline=loaded.pipeline,
            seconds=round((time.monotonic_ns() - want.since_ns) / 1e9, 2),
        )
        keep_alive = self._settings.keep_alive if want.keep_alive is None else want.keep_alive
        return lambda: self._loaded(want, Entry(plan, runner, keep_alive))

    def _loaded(self, want: Want, entry: Entry) -> None:
        self._entries[entry.plan.key] = entry
        if want in self._waiting:
            self._waiting.remove(want)
            self._grant(entry, want)  # before a keep-alive of 0 can end what was loaded for it
        if not entry.users:
            self._restart_timer(entry)

    def _load_failed(self, want: Want, error: LhamaError) -> None:
        if isinstance(error, OutOfMemoryAtLoad) and (
            self._makes_room(want) or self._passes_over(want, error)
        ):
            return
        if want in self._waiting:
            self._waiting.remove(want)
        _refuse(want, next(iter(want.passed_over.values()), error))  # the best backend's words

    def _makes_room(self, want: Want) -> bool:
        """Prepare to load once more after memory ran out: every other model goes, and a context
        that nobody asked for shrinks. False where neither is left to do."""
        automatic = want.request.num_ctx is None and not self._settings.context_length
        if automatic and want.plan is not None:
            want.most_context = lower_context(want.plan.num_ctx)
        if want.retried or not (self._entries or want.most_context):
            return False
        for entry in self._entries.values():
            entry.expiring = True
        want.plan, want.retried = None, True
        return True

    def _passes_over(self, want: Want, error: OutOfMemoryAtLoad) -> bool:
        """Prepare to load with the next backend, which may keep a part of the model elsewhere.
        False where there is none."""
        if want.plan is None or not want.plan.alternatives:
            return False
        backend = want.plan.message.backend
        log.warning("backend passed over", backend=backend, reason=error.message)
        want.passed_over[backend] = error
        want.plan = None
        return True

    async def _unload(self, entry: Entry) -> Callable[[], None]:
        await entry.runner.stop()
        log.info("model unloaded", model=entry.plan.model.name.short)

        return lambda: self._forget(entry)


def _as_load_error(error: Exception) -> LhamaError:
    """What a load raised, as an answer for the client."""
    if isinstance(error, LhamaError):
        return error
    return LoadError(f"{type(error).__name__}: {error}")


def _refuse(want: Want, error: Exception) -> None:
    if not want.answer.done():
        want.answer.set_exception(error)
