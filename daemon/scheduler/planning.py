"""From a stored model and a request to everything a load needs. Reads headers: run in a thread."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import structlog

from lhama.daemon.config import Settings
from lhama.daemon.errors import LoadError
from lhama.daemon.prompt.fit import real_context
from lhama.daemon.protocol.options import EMBEDDING_BATCH
from lhama.daemon.scheduler.placement import (
    LoadRequest,
    choose_slots,
    default_context,
)
from lhama.daemon.store.model import StoredModel
from lhama.daemon.wire.messages import Load
from lhama.plugins import gguf
from lhama.plugins.asking import BadAnswer
from lhama.plugins.backend import (
    Backend,
    BackendError,
    Device,
    LoadOptions,
    MemoryEstimate,
    Support,
    UnsupportedModel,
)
from lhama.plugins.gguf import GGUF
from lhama.plugins.registry import Registry

log = structlog.get_logger(__name__)

GENERATION_BATCH = 512
"""``num_batch`` where nothing else is asked for."""


@dataclass(frozen=True, slots=True)
class Plan:
    """One model as it would be loaded now."""

    key: str
    """The weights file's path: a runner's identity."""
    model: StoredModel
    request: LoadRequest
    num_ctx: int
    default_context: int
    default_batch: int
    """What these two are where a request leaves them open."""
    trained_context: int
    message: Load
    estimate: MemoryEstimate
    accelerators: int
    free_bytes: int
    """Of the accelerators together; 0 without one."""
    reason: str = ""
    """Why this backend; empty if it gave none."""
    alternatives: int = 0
    """Backends that could be tried after it."""


class Planner:
    """Chooses backend, context and slots for a model."""

    def __init__(self, settings: Settings, backends: Registry) -> None:
        self._settings = settings
        self._backends = backends
        self._accelerators: dict[str, set[str]] = {}
        """Every one that a backend has ever found, by the backend's name."""
        self.lost: frozenset[str] = frozenset()
        """Accelerators that were there and were not at the last look."""

    def plan(
        self,
        model: StoredModel,
        request: LoadRequest,
        most_context: int | None = None,
        passed_over: Mapping[str, LoadError] = MappingProxyType({}),
    ) -> Plan:
        """``most_context`` and ``passed_over``: what is left of the default, and which backends are
        not tried again, after loads that ran out of memory. A backend that gives no answer to what
        a load takes is passed over, too.

        Raises ``LoadError`` where no backend takes the model or its file is damaged.
        """
        files = model.files()
        try:
            header = gguf.read(files.weights)
            able = self._backends.able(files, self._settings.backend, without=passed_over)
        except (gguf.GGUFError, UnsupportedModel) as e:
            raise LoadError(f"unable to load model: {e}") from e
        except OSError as e:
            raise LoadError(f"unable to load model: {e.strerror}: {files.weights}") from e
        failures = [f"{name} ran out of memory: {e.message}" for name, e in passed_over.items()]
        while able:
            (backend, support), *able = able
            reason = "it was asked for" if self._settings.backend else support.reason
            try:
                plan = self._plan(model, request, header, backend, most_context)
            except BadAnswer as e:
                log.warning("backend passed over", backend=backend.name, reason=str(e))
                failures.append(f"{backend.name}: {e}")
                continue
            except BackendError as e:  # of what was asked for: no other backend shall hide it
                raise LoadError(f"unable to load model: {e}") from e
            why = "; ".join(filter(None, [*failures, reason]))
            return replace(plan, reason=why, alternatives=len(able))
        raise LoadError("unable to load model: " + "; ".join(failures))

    def _plan(
        self,
        model: StoredModel,
        request: LoadRequest,
        header: GGUF,
        backend: Backend,
        most_context: int | None,
    ) -> Plan:
        """The plan with one backend. Raises ``LoadError``, and ``BackendError`` in its words."""
        files, settings = model.files(), self._settings
        devices = self._backends.probe(backend).devices
        self._notice_lost(backend.name, devices, request)
        trained = header.get_int(header.key("context_length"), 4096)
        default = settings.context_length or default_context(devices, settings.gpu_overhead)
        num_ctx = min(request.num_ctx or most_context or default, trained)

        def options(slots: int) -> LoadOptions:
            return LoadOptions(
                slots=1 if request.embedding else slots,
                context=min(real_context(num_ctx), max(trained, num_ctx)),
                batch=_batch(request, num_ctx),
                gpu_layers=-1 if request.num_gpu is None else request.num_gpu,
                main_gpu=request.main_gpu or 0,
                threads=request.num_thread or 0,
                mmap=request.use_mmap,
                kv_type=settings.kv_cache_type,
                flash_attention=settings.flash_attention,
                embedding=request.embedding,
                gpu_overhead_bytes=settings.gpu_overhead,
            )

        def estimate(chosen: LoadOptions) -> MemoryEstimate:
            return self._backends.estimate(backend, files, chosen)

        chosen = choose_slots(settings.num_parallel, devices, options, estimate)
        accelerators = [d for d in devices if d.kind != "cpu"]
        return Plan(
            key=files.weights,
            model=model,
            request=request,
            num_ctx=num_ctx,
            default_context=default,
            default_batch=_batch(LoadRequest(embedding=request.embedding), num_ctx),
            trained_context=trained,
            message=Load(
                backend.name,
                files,
                chosen,
                pipeline=settings.pipeline,
                blocked_plugins=self._backends.others(backend.name),
            ),
            estimate=estimate(chosen),
            accelerators=len(accelerators),
            free_bytes=sum(d.free_bytes for d in accelerators),
        )

    def verdicts(self, model: StoredModel) -> list[tuple[str, Support]]:
        """What the backends say of a model, the best first; of the one asked for alone."""
        found = self._backends.verdicts(model.files(), self._settings.backend)
        return [(backend.name, support) for backend, support in found]

    def _notice_lost(self, name: str, devices: Sequence[Device], request: LoadRequest) -> None:
        """Raise ``LoadError`` rather than compute on the processor what ran on a card before."""
        now = {device.id for device in devices if device.kind != "cpu"}
        known = self._accelerators.setdefault(name, set())
        known |= now
        self.lost = frozenset(known - now)
        if self.lost and not now and request.num_gpu != 0:
            raise LoadError(f"unable to load model: {_lost_text(self.lost)}")


def _lost_text(lost: Iterable[str]) -> str:
    return (
        f"{', '.join(sorted(lost))} was there and is not: see 'lhama doctor' and the system's log, "
        "then restart lhama; num_gpu 0 computes on the processor"
    )


def _batch(request: LoadRequest, num_ctx: int) -> int:
    """Tokens of one step; of an embedding model, of one text. A step of none would never end, and
    more than a context is never needed."""
    asked = max(request.num_batch or 0, 0)
    if request.embedding:
        return min(asked or EMBEDDING_BATCH, num_ctx)
    return min(asked, max(num_ctx, GENERATION_BATCH)) or GENERATION_BATCH
