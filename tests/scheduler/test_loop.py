"""The scheduler's decisions, watched from inside the real application."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from lhama_testing_http import Reply, Server, create_reference, serving

from lhama.backends.reference.model import Behaviour
from lhama.daemon.scheduler.planning import Planner
from lhama.daemon.scheduler.runner import Runner


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    """Two models that take a while to load; one may be loaded at a time."""
    async with serving(tmp_path / "models", max_loaded_models=1) as server:
        for n, name in enumerate(("first", "second")):
            behaviour = Behaviour(load_us=100_000 + n)
            await create_reference(server, tmp_path, name, behaviour, context=8192)
        yield server


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """The loads there are: model and context."""
    found: list[tuple[str, int]] = []
    start = Runner.start

    async def starting(runner: Runner, load: Any, stall: float) -> Any:
        found.append((runner.name, load.options.context))
        return await start(runner, load, stall)

    monkeypatch.setattr(Runner, "start", starting)
    return found


async def ask(server: Server, model: str, num_ctx: int = 512, letters: int = 5) -> Reply:
    body = {
        "model": model,
        "prompt": "x" * letters,
        "raw": True,
        "stream": False,
        "truncate": False,
        "options": {"num_predict": 2, "num_ctx": num_ctx},
    }
    return await server.ask("POST /api/generate", body)


async def test_requests_that_come_during_a_load_share_it(
    server: Server, loads: list[tuple[str, int]]
) -> None:
    """The end of a load and its outcome are one event: nothing is decided between the two."""
    replies = await asyncio.gather(*(ask(server, "first") for _ in range(12)))
    assert {reply.status for reply in replies} == {200}
    assert loads == [("first:latest", 512)]


async def test_nobody_is_served_by_a_runner_loaded_otherwise(
    server: Server, loads: list[tuple[str, int]]
) -> None:
    """A prompt of 700 tokens in a context of 1024, asked for while 512 is being loaded."""
    first = asyncio.create_task(ask(server, "first", 512))
    while not loads:  # noqa: ASYNC110 -- what is waited for tells nobody
        await asyncio.sleep(0.01)
    large = await ask(server, "first", 1024, 700)
    assert ((await first).status, large.status) == (200, 200)
    assert large.json()["prompt_eval_count"] == 700
    assert loads == [("first:latest", 512), ("first:latest", 1024)]


async def test_what_was_planned_before_an_eviction_is_planned_again(
    server: Server, loads: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is more memory after it than the plan was made for."""
    plans: list[str] = []
    plan = Planner.plan

    def planning(planner: Planner, model: Any, *given: Any) -> Any:
        plans.append(model.name.short)
        return plan(planner, model, *given)

    monkeypatch.setattr(Planner, "plan", planning)
    assert (await ask(server, "first")).status == 200
    assert (await ask(server, "second")).status == 200
    assert [name for name, _ in loads] == ["first:latest", "second:latest"]
    assert plans == ["first:latest", "second:latest", "second:latest"]


async def test_models_that_take_turns(server: Server, loads: list[tuple[str, int]]) -> None:
    """Each evicts the other as soon as that one is idle, and nobody waits for ever."""
    names = ["first", "second"] * 4
    replies = await asyncio.gather(*(ask(server, name) for name in names))
    assert {reply.status for reply in replies} == {200}
    assert 2 <= len(loads) <= len(names)


async def test_a_runner_may_say_a_lot_without_ending_the_line(tmp_path: Path) -> None:
    """Its stderr is a pipe: if nobody took what is in there it would stand still."""
    async with serving(tmp_path / "models") as server:
        await create_reference(server, tmp_path, "loud", Behaviour(fault="shout", fault_step=2))
        body = {"model": "loud", "prompt": "x", "stream": False, "options": {"num_predict": 20}}
        reply = await server.ask("POST /api/generate", body)
        assert (reply.status, reply.json()["eval_count"]) == (200, 20)
