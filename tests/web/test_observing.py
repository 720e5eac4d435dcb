"""lhama's own routes: the assembly lines, seen and arranged, and Prometheus's page."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import Any

import pytest
from lhama_testing_http import Create, Server
from prometheus_client.parser import text_string_to_metric_families

from lhama.backends.reference.model import Behaviour

ASK = {"model": "ref", "prompt": "Hi", "options": {"num_predict": 30, "temperature": 0}}


@pytest.fixture
async def ref(create: Create) -> None:
    await create("ref", Behaviour(compute_us=500))


async def _line(server: Server, steps: int = 0) -> dict[str, Any]:
    reply = (await server.send("GET", f"/api/lhama/pipelines?steps={steps}")).json()
    [model] = reply["models"]
    return dict(model)


async def test_nothing_is_loaded(server: Server) -> None:
    reply = await server.send("GET", "/api/lhama/pipelines")
    assert reply.json() == {"queued": 0, "models": []}


async def test_a_line_tells_its_steps(server: Server, ref: None) -> None:
    await server.send("POST", "/api/generate", ASK)
    line = await _line(server, steps=10)
    assert (line["model"], line["backend"], line["order"]) == ("ref:latest", "reference", "host")
    assert (line["running"], line["waiting"]) == (0, 0)
    counters = line["counters"]
    assert counters["tokens"] == 30
    assert counters["steps"] == sum(counters["gaps"]) == 30
    assert counters["device_ns"] > 30 * 500_000
    assert [span["step"] for span in line["spans"]] == list(range(21, 31))
    for span in line["spans"][:-1]:  # the last one's news may be here before its time is noted
        prepare, prepared, enqueue, enqueued, wait, ready, committed, emitted = span["times"]
        assert prepare <= prepared <= enqueue <= enqueued <= wait <= ready <= committed <= emitted
        assert (span["rows"], span["tokens"], span["prompt_tokens"]) == (1, 1, 0)
    times = [span["times"] for span in line["spans"]]
    assert all(after[0] < before[5] for before, after in pairwise(times)), (
        "prepared while it computed"
    )


async def test_an_idle_time_is_no_gap(server: Server, ref: None) -> None:
    await server.send("POST", "/api/generate", ASK)
    before = (await _line(server))["counters"]["gap_ns"]
    await asyncio.sleep(0.5)
    await server.send("POST", "/api/generate", ASK)
    assert (await _line(server))["counters"]["gap_ns"] - before < 400_000_000


async def test_the_order_is_changed_while_a_stream_runs(server: Server, ref: None) -> None:
    whole = ASK | {"stream": False}
    expected = (await server.send("POST", "/api/generate", whole)).json()["response"]
    asked = asyncio.create_task(server.send("POST", "/api/generate", whole))
    orders = set()
    for pipeline in ("off", "on", "off", "auto"):
        reply = await server.send(
            "POST", "/api/lhama/pipeline", {"model": "ref", "pipeline": pipeline}
        )
        assert (reply.status, reply.body) == (200, b"")
        await asyncio.sleep(0.01)
        orders.add((await _line(server))["order"])
    assert (await asked).json()["response"] == expected
    assert orders == {"off", "host"}


async def test_the_backends_say_what_they_make_of_a_model(server: Server, ref: None) -> None:
    reply = await server.send("GET", "/api/lhama/backends?model=ref")
    first, *others = reply.json()["verdicts"]
    assert first == {
        "backend": "reference",
        "score": 100,
        "reason": "nobody else runs test models",
    }
    assert {one["backend"] for one in others} >= {"llamacpp", "pytorch"}
    assert all(one["score"] == 0 and one["reason"] for one in others)
    await server.send("POST", "/api/generate", ASK)
    assert (await _line(server))["reason"] == first["reason"]
    assert (await server.send("GET", "/api/lhama/backends?model=nobody")).status == 404
    assert (await server.send("GET", "/api/lhama/backends")).status == 400


async def test_what_cannot_be_arranged(server: Server, ref: None) -> None:
    async def arrange(body: dict[str, Any]) -> tuple[int, str]:
        reply = await server.send("POST", "/api/lhama/pipeline", body)
        return reply.status, reply.json()["error"]

    assert await arrange({"model": "ref", "pipeline": "on"}) == (
        404,
        "model 'ref' is not loaded",
    )
    assert await arrange({"model": "ref", "pipeline": "fast"}) == (
        400,
        'pipeline must be "auto", "on" or "off"',
    )
    assert (await arrange({"model": "nobody", "pipeline": "on"}))[0] == 404
    assert (await server.send("GET", "/api/lhama/pipelines?steps=x")).status == 400


async def test_prometheus_reads_the_metrics(server: Server, ref: None) -> None:
    await server.send("POST", "/api/generate", ASK)
    reply = await server.send("GET", "/metrics")
    assert reply.header(
        "content-type",
    ).startswith("text/plain; version=")  # type: ignore[union-attr]
    samples = {
        (sample.name, sample.labels.get("le", "")): sample
        for family in text_string_to_metric_families(reply.body.decode())
        for sample in family.samples
    }
    tokens = samples["lhama_tokens_total", ""]
    assert tokens.value == 30
    assert tokens.labels == {"model": "ref:latest", "backend": "reference", "device": "cpu"}
    assert samples["lhama_step_gap_seconds_count", ""].value == 30
    assert samples["lhama_step_gap_seconds_bucket", "+Inf"].value == 30
    assert samples["lhama_device_seconds_total", ""].value > 30 * 0.0005
    assert samples["lhama_load_queue", ""].value == 0
    assert samples["process_cpu_seconds_total", ""].value > 0
