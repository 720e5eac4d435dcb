"""lhama's own routes: the assembly lines, seen and arranged, and Prometheus metrics."""

from __future__ import annotations

from aiohttp import web

from lhama.daemon.errors import BadRequest, ModelNotFound
from lhama.daemon.protocol.pipelines import (
    ArrangeRequest,
    BackendsReply,
    Pipeline,
    PipelinesReply,
    Verdict,
)
from lhama.daemon.scheduler import Observation
from lhama.daemon.web import lookup, metrics
from lhama.daemon.web.body import read_json
from lhama.daemon.web.replies import empty_reply, json_reply
from lhama.daemon.web.service import SERVICE

MOST_STEPS = 4096


async def pipelines(request: web.Request) -> web.Response:
    """Every loaded model; ``?steps=`` asks for its last steps too."""
    text = request.query.get("steps", "0")
    if not (text.isascii() and text.isdigit()):
        raise BadRequest(f"steps must be a number, not {text!r}")
    scheduler = request.app[SERVICE].scheduler
    observed = await scheduler.observe(min(int(text), MOST_STEPS))
    reply = PipelinesReply(scheduler.queued, [_pipeline(one) for one in observed])
    return json_reply(reply)


def _pipeline(observation: Observation) -> Pipeline:
    loaded, line = observation.loaded, observation.line
    return Pipeline(
        model=loaded.model.name.short,
        backend=loaded.backend,
        reason=loaded.reason,
        device=loaded.device,
        slots=loaded.slots,
        size=loaded.size,
        size_vram=loaded.size_vram,
        order=line.order,
        verdict=line.verdict,
        notes=list(loaded.notes),
        running=line.running,
        waiting=line.waiting,
        now_ns=line.now_ns,
        counters=line.counters,
        spans=line.spans,
    )


async def backends(request: web.Request) -> web.Response:
    """Which backends could run ``?model=`` here, and why the first one does."""
    service = request.app[SERVICE]
    model = await lookup.for_chat(service, request.query.get("model", ""))
    verdicts = await service.scheduler.verdicts(model)
    return json_reply(
        BackendsReply(
            [Verdict(backend, support.score, support.reason) for backend, support in verdicts]
        )
    )


async def arrange(request: web.Request) -> web.Response:
    """Turn a loaded model's pipeline on or off while it runs; ``auto`` gives it back."""
    service = request.app[SERVICE]
    body = await read_json(request, ArrangeRequest)
    if body.pipeline not in ("auto", "on", "off"):
        raise BadRequest('pipeline must be "auto", "on" or "off"')
    model = await lookup.for_chat(service, body.model)
    if not service.scheduler.arrange(model, body.pipeline):
        raise ModelNotFound(f"model '{body.model}' is not loaded")
    return empty_reply()


async def show_metrics(request: web.Request) -> web.Response:
    """Prometheus's text format."""
    service = request.app[SERVICE]
    scheduler = service.scheduler
    observed = await scheduler.observe()
    content = metrics.render(observed, scheduler.queued, scheduler.losses, service.usage)
    return web.Response(body=content, headers={"Content-Type": metrics.CONTENT_TYPE})
