"""Where and how a model is loaded, and who must go for it: pure functions over plain data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from lhama.plugins.backend import Device, LoadOptions, MemoryEstimate

GIB = 1 << 30

CPU_SLOTS = 4
"""Slots on a CPU: four clients share every pass over the weights, and a cache each is cheap."""

GPU_SLOTS = (32, 16, 8, 4, 2, 1)
"""Slots tried on an accelerator, the most that fit win."""

SHARE = 0.8
"""A further model may take this share of the memory that is free; else something is evicted."""

CONTEXT_TIERS = ((47 * GIB, 262_144), (23 * GIB, 32_768))
"""Accelerator memory from which on Ollama's default context grows; below, 4096."""


@dataclass(frozen=True, slots=True)
class LoadRequest:
    """What a request asks of its runner; ``None`` leaves the choice open. Any difference to what
    is loaded reloads the model, except where it is left open or cannot matter."""

    num_ctx: int | None = None
    num_batch: int | None = None
    num_gpu: int | None = None
    main_gpu: int | None = None
    use_mmap: bool | None = None
    num_thread: int | None = None
    embedding: bool = False

    def matches(self, other: LoadRequest, context: int, batch: int, trained: int) -> bool:
        """Whether a runner loaded for ``other`` serves this one (contract §4, "Reload").

        ``context`` and ``batch`` are what is chosen where nothing is asked.
        """

        def asked(request: LoadRequest) -> tuple[int, int]:
            num_ctx = context if request.num_ctx is None else request.num_ctx
            return min(num_ctx, trained), request.num_batch or batch

        return (
            asked(self) == asked(other)
            and (self.num_gpu is None or self.num_gpu < 0 or self.num_gpu == other.num_gpu)
            and (self.main_gpu, self.use_mmap) == (other.main_gpu, other.use_mmap)
            and self.num_thread == other.num_thread
            and self.embedding == other.embedding
        )


def default_context(devices: Sequence[Device], overhead: int) -> int:
    """Ollama's tiers by the accelerators' total memory less ``overhead`` bytes each."""
    memory = sum(d.total_bytes - overhead for d in devices if d.kind != "cpu")
    return next((context for least, context in CONTEXT_TIERS if memory >= least), 4096)


def lower_context(context: int) -> int | None:
    """The next of Ollama's tiers below, for a context that did not fit; ``None`` below them all."""
    return next((tier for tier in (32_768, 4096) if tier < context), None)


def choose_slots(
    parallel: int,
    devices: Sequence[Device],
    options: Callable[[int], LoadOptions],
    estimate: Callable[[LoadOptions], MemoryEstimate],
) -> LoadOptions:
    """The load options with the number of slots that suits the machine.

    ``parallel`` is the user's choice, 0 none. ``options`` gives the options for a slot count.
    """
    if parallel:
        return options(parallel)
    free = max((d.free_bytes for d in devices if d.kind != "cpu"), default=0)
    if not free or options(1).gpu_layers == 0:
        return options(CPU_SLOTS)
    for slots in GPU_SLOTS:
        if estimate(options(slots)).total_bytes <= SHARE * free:
            return options(slots)
    return options(1)


@dataclass(frozen=True, slots=True)
class Resident:
    """A loaded model, as far as eviction is concerned."""

    key: str
    idle: bool
    keep_alive: int


@dataclass(frozen=True, slots=True)
class Decision:
    """``load`` now, ``evict`` the model ``victim`` first, or ``wait`` for it to become idle."""

    action: Literal["load", "evict", "wait"]
    victim: str = ""


def decide(residents: Sequence[Resident], needed: int, free: int, most: int) -> Decision:
    """What to do about a model that needs ``needed`` bytes while ``free`` are there.

    The first model is always tried: the backend knows better than an estimate. ``most`` limits how
    many may be loaded.
    """
    if not residents or (len(residents) < most and needed <= SHARE * free):
        return Decision("load")
    victim = min(residents, key=lambda r: (not r.idle, r.keep_alive, r.key))
    return Decision("evict" if victim.idle else "wait", victim.key)
