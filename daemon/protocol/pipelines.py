"""lhama's own routes: what each loaded model's assembly line does, and which order it uses."""

from __future__ import annotations

import msgspec

from lhama.daemon.wire.messages import Counters, StepSpan


class Pipeline(msgspec.Struct):
    """One loaded model. Counters are sums since it was loaded."""

    model: str
    backend: str
    reason: str
    """Why this backend."""
    device: str
    slots: int
    size: int
    size_vram: int
    order: str
    """``device``, ``host`` or ``off``: the order of the halves in use now."""
    verdict: str
    """Why, where the runner has compared the orders on this machine."""
    notes: list[str]
    """What the backend says of how it runs the model."""
    running: int
    waiting: int
    now_ns: int
    """The runner's clock, which the spans' times are of."""
    counters: Counters
    spans: list[StepSpan]


class PipelinesReply(msgspec.Struct):
    """Answers ``GET /api/lhama/pipelines``."""

    queued: int
    """Requests that wait for a model to be loaded."""
    models: list[Pipeline]


class Verdict(msgspec.Struct):
    """What one backend says of a model."""

    backend: str
    score: int
    """0: it cannot run it. The highest gets it."""
    reason: str


class BackendsReply(msgspec.Struct):
    """Answers ``GET /api/lhama/backends?model=``."""

    verdicts: list[Verdict]
    """The best first."""


class ArrangeRequest(msgspec.Struct):
    """``POST /api/lhama/pipeline``."""

    model: str = ""
    pipeline: str = ""
    """``auto``, ``on`` or ``off``."""
