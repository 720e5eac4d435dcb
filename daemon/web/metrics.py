"""What ``/metrics`` says, in Prometheus's format: counters of every loaded model's assembly line, and
of requests by API key."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate

from prometheus_client import PROCESS_COLLECTOR, CollectorRegistry, exposition
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from lhama.daemon.scheduler import Observation
from lhama.daemon.web.usage import Usage
from lhama.daemon.wire.messages import GAP_BOUNDS, Counters

CONTENT_TYPE = exposition.CONTENT_TYPE_LATEST

LABELS = ("model", "backend", "device")
_NS = 1e9


def render(
    observed: Sequence[Observation], queued: int, losses: Mapping[str, int], usage: Usage
) -> bytes:
    """The whole page."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Lines(observed, queued))
    registry.register(_Losses(losses))
    registry.register(_Requests(usage))
    return exposition.generate_latest(registry) + exposition.generate_latest(_process)


_process = CollectorRegistry(auto_describe=False)
_process.register(PROCESS_COLLECTOR)


_GAUGES: tuple[tuple[str, str, Callable[[Observation], float]], ...] = (
    ("requests_running", "Requests that generate.", lambda o: o.line.running),
    ("requests_waiting", "Requests that wait for a slot.", lambda o: o.line.waiting),
    ("slots", "Requests that can generate at once.", lambda o: o.loaded.slots),
    ("model_bytes", "Memory the model takes.", lambda o: o.loaded.size),
    ("model_device_bytes", "Of it on the device.", lambda o: o.loaded.size_vram),
)
_COUNTERS = (
    ("steps", "Steps computed.", "steps", 1),
    ("rows", "Rows of all steps.", "rows", 1),
    ("tokens", "Tokens sampled.", "tokens", 1),
    ("prompt_tokens", "Prompt tokens computed.", "prompt_tokens", 1),
    ("device_seconds", "Time the device was busy.", "device_ns", _NS),
    ("gap_seconds", "Time it stood idle though there was work.", "gap_ns", _NS),
)


class _Lines(Collector):
    def __init__(self, observed: Sequence[Observation], queued: int) -> None:
        self._observed = observed
        self._queued = queued

    def collect(self) -> Iterable[Metric]:
        yield GaugeMetricFamily(
            "lhama_load_queue", "Requests that wait for a model to be loaded.", self._queued
        )
        yield from self._gauges()
        yield from self._counters()
        gaps = HistogramMetricFamily(
            "lhama_step_gap_seconds",
            "Time the device stood idle before a step, though there was work.",
            labels=LABELS,
        )
        for one in self._observed:
            gaps.add_metric(
                _labels(one), _buckets(one.line.counters), one.line.counters.gap_ns / _NS
            )
        yield gaps

    def _gauges(self) -> Iterator[Metric]:
        for name, text, value in _GAUGES:
            family = GaugeMetricFamily(f"lhama_{name}", text, labels=LABELS)
            for one in self._observed:
                family.add_metric(_labels(one), value(one))
            yield family

    def _counters(self) -> Iterator[Metric]:
        for name, text, field, scale in _COUNTERS:
            family = CounterMetricFamily(f"lhama_{name}", text, labels=LABELS)
            for one in self._observed:
                family.add_metric(_labels(one), getattr(one.line.counters, field) / scale)
            yield family


class _Losses(Collector):
    def __init__(self, losses: Mapping[str, int]) -> None:
        self._losses = losses

    def collect(self) -> Iterable[Metric]:
        family = CounterMetricFamily(
            "lhama_runners_lost", "Runners that ended unasked.", labels=("cause",)
        )
        for cause, count in self._losses.items():
            family.add_metric([cause], count)
        yield family


class _Requests(Collector):
    def __init__(self, usage: Usage) -> None:
        self._usage = usage

    def collect(self) -> Iterable[Metric]:
        requests = CounterMetricFamily(
            "lhama_http_requests", "Requests answered.", labels=("key", "route", "status")
        )
        for (key, route, status), count in self._usage.requests.items():
            requests.add_metric([key, route, str(status)], count)
        yield requests
        tokens = CounterMetricFamily(
            "lhama_used_tokens", "Tokens of answered requests.", labels=("key", "kind")
        )
        for (key, kind), count in self._usage.tokens.items():
            tokens.add_metric([key, kind], count)
        yield tokens


def _labels(one: Observation) -> list[str]:
    return [one.loaded.model.name.short, one.loaded.backend, one.loaded.device]


def _buckets(counters: Counters) -> list[tuple[str, float]]:
    """Cumulative, as Prometheus has them. A line of embeddings counts no gaps."""
    sums = list(accumulate(counters.gaps or [0] * (len(GAP_BOUNDS) + 1)))
    bounds = [*(f"{bound / _NS:g}" for bound in GAP_BOUNDS), "+Inf"]
    return list(zip(bounds, map(float, sums), strict=True))
