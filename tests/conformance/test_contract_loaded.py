"""Which models are loaded, for how long, and how that is listed (§1 ps, §4)."""

from __future__ import annotations

import asyncio
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from lhama_testing_http import Create, Reply, Server, create_reference, serving

from lhama.backends.reference.model import Behaviour
from lhama.daemon.durations import SECOND

GENERATE = "POST /api/generate"
FOREVER = timedelta(microseconds=(2**63 - 1) // 1000)
SLACK = timedelta(seconds=3)


async def generate(server: Server, model: str = "ref", tokens: int = 1, **members: Any) -> Reply:
    options = {"num_predict": tokens, **members.pop("options", {})}
    body = {"model": model, "prompt": "x", "stream": False, "options": options, **members}
    return await server.ask(GENERATE, body)


async def ps(server: Server) -> list[dict[str, Any]]:
    models: list[dict[str, Any]] = (await server.ask("GET /api/ps")).json()["models"]
    return models


async def emptied(server: Server) -> None:
    deadline = time.monotonic() + 10
    while await ps(server):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


def stays(model: dict[str, Any]) -> timedelta:
    """How long a listed model stays from now on."""
    moment = datetime.fromisoformat(model["expires_at"][:19]).replace(tzinfo=None)
    return moment - datetime.now().replace(microsecond=0)


@pytest.fixture
async def ref(create: Create) -> str:
    await create("ref")
    return "ref"


async def test_a_line_of_ps(server: Server, ref: str) -> None:
    await generate(server)
    (line,) = await ps(server)
    assert list(line) == [
        *("name", "model", "size", "digest", "details", "expires_at", "size_vram"),
        "context_length",
    ]
    assert list(line["details"]) == [
        *("parent_model", "format", "family", "families", "parameter_size"),
        "quantization_level",
    ]
    (listed,) = (await server.ask("GET /api/tags")).json()["models"]
    assert (line["name"], line["model"]) == ("ref:latest", "ref:latest")
    assert line["digest"] == listed["digest"]
    assert line["details"]["parent_model"] == ""
    assert (line["size_vram"], line["size"] > 0) == (0, True)
    assert stays(line) == pytest.approx(timedelta(minutes=5), abs=SLACK)


@pytest.mark.parametrize(
    ("keep_alive", "expected"),
    [
        (300, timedelta(minutes=5)),
        (90.5, timedelta(seconds=90)),
        ("1h30m", timedelta(minutes=90)),
        ("1.5m", timedelta(seconds=90)),
        (-1, FOREVER),
        ("-1s", FOREVER),
        (None, timedelta(minutes=5)),
    ],
)
async def test_forms_of_keep_alive(
    server: Server, ref: str, keep_alive: Any, expected: timedelta
) -> None:
    await generate(server, keep_alive=keep_alive)
    assert stays((await ps(server))[0]) == pytest.approx(expected, abs=SLACK)


async def test_keep_alive_ends_sticks_and_unloads(server: Server, ref: str) -> None:
    await generate(server, keep_alive="10m")
    await generate(server)
    ten = timedelta(minutes=10)
    assert stays((await ps(server))[0]) == pytest.approx(ten, abs=SLACK), "it is the runner's now"
    await generate(server, keep_alive="150ms")
    await emptied(server)
    await generate(server, keep_alive=0)
    assert await ps(server) == [], "what is on its way out is not listed"
    for forms in ({}, {"messages": []}):
        route = "POST /api/chat" if forms else GENERATE
        reply = await server.ask(route, {"model": ref, "keep_alive": "1h", **forms})
        assert reply.json()["done_reason"] == "load"
        assert len(await ps(server)) == 1
        reply = await server.ask(route, {"model": ref, "keep_alive": "0s", **forms})
        assert reply.json()["done_reason"] == "unload"
        assert await ps(server) == []


async def test_the_environments_keep_alive(tmp_path: Path) -> None:
    async with serving(tmp_path / "models", keep_alive=7 * SECOND) as server:
        await create_reference(server, tmp_path, "ref")
        await generate(server)
        seven = timedelta(seconds=7)
        assert stays((await ps(server))[0]) == pytest.approx(seven, abs=SLACK)


async def test_what_stays_longest_comes_first(server: Server, create: Create, ref: str) -> None:
    await create("other", Behaviour(compute_us=1))
    await generate(server, keep_alive="10m")
    await generate(server, "other")
    assert [m["name"] for m in await ps(server)] == ["ref:latest", "other:latest"]
    await generate(server, "other", keep_alive=-1)
    assert [m["name"] for m in await ps(server)] == ["other:latest", "ref:latest"]


async def test_contexts_are_listed_as_they_are_in_effect(server: Server, ref: str) -> None:
    for asked, listed in ((64, 64), (3, 4), (0, 4), (-5, 4), (1024, 1024), (9999, 2048)):
        assert (await generate(server, options={"num_ctx": asked})).status == 200
        assert [m["context_length"] for m in await ps(server)] == [listed]


async def test_a_deleted_model_stays_loaded_under_its_name(server: Server, ref: str) -> None:
    await server.ask("POST /api/copy", {"source": ref, "destination": "alias"})
    await generate(server)
    assert (await server.ask("DELETE /api/delete", {"model": ref})).status == 200
    assert [m["name"] for m in await ps(server)] == ["ref:latest"]
    assert (await generate(server)).status == 404
    assert (await generate(server, keep_alive=0)).json() == {"error": "model 'ref' not found"}
    assert (await generate(server, "alias")).status == 200
    assert [m["name"] for m in await ps(server)] == ["ref:latest"], "its runner goes on"


async def test_one_model_at_a_time(tmp_path: Path) -> None:
    """``OLLAMA_MAX_LOADED_MODELS=1``: whoever is asked for evicts the other."""
    async with serving(tmp_path / "models", max_loaded_models=1) as server:
        for n, name in enumerate(("one", "two")):
            await create_reference(server, tmp_path, name, Behaviour(compute_us=n))
        for name in ("one", "two", "one"):
            assert (await generate(server, name)).status == 200
            assert [m["name"] for m in await ps(server)] == [f"{name}:latest"]


async def test_many_at_once_and_room_for_two(tmp_path: Path) -> None:
    """Eight requests for two models that evict each other, as Ollama was seen to take them: one is
    served, one waits in the queue, the rest are refused at once."""
    async with serving(tmp_path / "models", max_loaded_models=1, max_queue=1) as server:
        for n, name in enumerate(("one", "two")):
            slow = Behaviour(load_us=400_000, compute_us=1000 + n)
            await create_reference(server, tmp_path, name, slow)
        names = ["one", "two"] * 4
        replies = await asyncio.gather(*(generate(server, name, 5) for name in names))
        assert sorted(reply.status for reply in replies) == [200, 200] + [503] * 6
        refused = {reply.body for reply in replies if reply.status == 503}
        assert refused == {
            b'{"error":"server busy, please try again.  maximum pending requests exceeded"}'
        }


@pytest.mark.parametrize(("parallel", "together"), [(1, False), (4, True), (0, True)])
async def test_slots(tmp_path: Path, parallel: int, together: bool) -> None:
    """``OLLAMA_NUM_PARALLEL``; Ollama's default is 1, lhama's are as many as make sense here."""
    async with serving(tmp_path / "models", num_parallel=parallel) as server:
        await create_reference(server, tmp_path, "ref", Behaviour(compute_us=4000))
        await generate(server)
        order: list[int] = []

        async def one(number: int, tokens: int) -> None:
            assert (await generate(server, tokens=tokens)).status == 200
            order.append(number)

        first = asyncio.create_task(one(1, 120))
        await asyncio.sleep(0.1)
        await asyncio.gather(first, one(2, 2))
        assert order == ([2, 1] if together else [1, 2])
