"""Sharp edges of Ollama's contract (§10): options, contexts, and which runner serves."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from lhama_testing_http import Create, Reply, Server, create_reference, serving

from lhama.backends.reference.model import Behaviour
from lhama.daemon.durations import MILLISECOND
from lhama.daemon.protocol.options import Options, merge
from lhama.daemon.scheduler import planning
from lhama.daemon.scheduler.runner import Runner
from lhama.daemon.wire import codec
from lhama.daemon.wire.messages import Delta, Step

GENERATE = "POST /api/generate"


async def generate(server: Server, model: str = "ref", **options: Any) -> Reply:
    body = {
        "model": model,
        "prompt": "x",
        "stream": False,
        "options": {"num_predict": 1, **options},
    }
    return await server.ask(GENERATE, body)


async def loaded(server: Server) -> dict[str, int]:
    """Context lengths of the models that are loaded."""
    models = (await server.ask("GET /api/ps")).json()["models"]
    return {model["name"]: model["context_length"] for model in models}


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Contexts of the runners that were started."""
    started: list[int] = []
    start: Callable[..., Awaitable[Any]] = Runner.start

    async def counted(runner: Runner, load: Any, stall: float) -> Any:
        started.append(load.options.context)
        return await start(runner, load, stall)

    monkeypatch.setattr(Runner, "start", counted)
    return started


async def test_edge_39_who_decides_the_context(tmp_path: Path) -> None:
    async with serving(tmp_path / "models", context_length=768) as server:
        await create_reference(server, tmp_path, "plain")
        await create_reference(server, tmp_path, "own", parameters={"num_ctx": 1024})
        await generate(server, "plain")
        assert await loaded(server) == {"plain:latest": 768}
        await generate(server, "own")
        assert await loaded(server) == {"own:latest": 1024}  # one file, so one runner
        await generate(server, "own", num_ctx=512)
        assert await loaded(server) == {"own:latest": 512}
    async with serving(tmp_path / "models") as server:
        await generate(server, "plain")
        assert await loaded(server) == {"plain:latest": 2048}, "4096, but trained for less"


def test_edge_41_models_with_eyes_need_room() -> None:
    for asked, plain, vision in ((1, 4, 2048), (0, 4, 2048), (-5, 4, 2048), (4096, 4096, 4096)):
        chosen = merge({"num_ctx": asked})
        assert chosen.floored(vision=False).num_ctx == plain
        assert chosen.floored(vision=True).num_ctx == vision
    assert Options().floored(vision=True).num_ctx is None


async def test_edge_42_a_context_beyond_the_trained_one_is_the_trained_one(
    server: Server, create: Create, loads: list[int]
) -> None:
    await create("ref")
    for num_ctx in (2048, 4096, 100_000):
        await generate(server, num_ctx=num_ctx)
        assert await loaded(server) == {"ref:latest": 2048}
    await generate(server)  # 4096 by default, which is too much as well
    assert len(loads) == 1


async def test_edge_43_a_full_queue_answers_while_the_first_still_waits(tmp_path: Path) -> None:
    async with serving(tmp_path / "models", max_queue=1) as server:
        await create_reference(server, tmp_path, "slow", Behaviour(load_us=700_000))
        pending = [asyncio.create_task(generate(server, "slow")) for _ in range(2)]
        await asyncio.sleep(0.2)  # one is being loaded for, one is in the queue
        reply = await generate(server, "slow")
        assert not any(task.done() for task in pending)
        assert reply.status == 503
        error = "server busy, please try again.  maximum pending requests exceeded"
        assert reply.json() == {"error": error}
        assert [(await task).status for task in pending] == [200, 200]
        # What is loaded is served past any queue.
        assert (await generate(server, "slow")).status == 200


async def test_edge_44_one_file_has_one_runner(
    server: Server, create: Create, loads: list[int], tmp_path: Path
) -> None:
    await create("ref")
    await server.ask("POST /api/copy", {"source": "ref", "destination": "alias"})
    await generate(server)
    await generate(server, "alias")
    assert len(loads) == 1
    assert list(await loaded(server)) == ["ref:latest"], "listed by its first name"
    await create("other", Behaviour(compute_us=1))
    await generate(server, "other")
    assert len(loads) == 2
    assert sorted(await loaded(server)) == ["other:latest", "ref:latest"]


@pytest.mark.fault(8)
async def test_edge_45_memory_that_runs_out(
    tmp_path: Path, loads: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "default_context", lambda devices, overhead: 262_144)
    async with serving(tmp_path / "models") as server:
        small = Behaviour(memory_context=40_000)
        await create_reference(server, tmp_path, "small", small, context=100_000)
        await create_reference(server, tmp_path, "other", context=512)
        await create_reference(server, tmp_path, "broken", Behaviour(fault="load"))
        # A context nobody asked for shrinks, once.
        assert (await generate(server, "small")).status == 200
        assert loads == [100_000, 32_768]
        assert await loaded(server) == {"small:latest": 32_768}
        assert (await generate(server, "small")).status == 200, "and stays"
        assert len(loads) == 2
        # One that was asked for is kept: every other model goes, then it fails.
        assert (await generate(server, "other")).status == 200
        assert (await generate(server, "small", num_ctx=51_200)).status == 500
        assert loads[2:] == [512, 51_200, 51_200]
        assert await loaded(server) == {}
        # What fails for another reason moves nobody.
        assert (await generate(server, "other")).status == 200
        assert (await generate(server, "broken")).status == 500
        assert list(await loaded(server)) == ["other:latest"]


@pytest.mark.fault(15)
async def test_edge_46_a_runner_that_says_something_is_not_stalled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time a load may take is counted from its last word, on the wire or in its log."""
    async with serving(tmp_path / "models", load_timeout=900 * MILLISECOND) as server:
        await create_reference(server, tmp_path, "slow", Behaviour(load_us=2_500_000))
        reply = await generate(server, "slow")
        assert reply.status == 500
        assert "timed out waiting for the runner to load" in reply.json()["error"]
        talk = "import sys, threading, time\n" + (
            "def talk():\n"
            "    while True:\n"
            "        print('still loading', file=sys.stderr, flush=True)\n"
            "        time.sleep(0.2)\n"
            "threading.Thread(target=talk, daemon=True).start()\n"
        )
        (tmp_path / "talkative").mkdir()
        (tmp_path / "talkative/sitecustomize.py").write_text(talk)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path / "talkative"))
        assert (await generate(server, "slow")).status == 200


async def test_edge_47_one_slot_is_enough_for_an_answer_and_its_context(tmp_path: Path) -> None:
    async with serving(tmp_path / "models", num_parallel=1) as server:
        await create_reference(server, tmp_path, "ref")
        replies = await asyncio.gather(*(generate(server) for _ in range(3)))
        assert all(reply.json()["context"] for reply in replies)


def test_edge_48_lines_of_eight_megabytes_pass() -> None:
    text = "\u00e9" * (4 * 1024 * 1024)
    decoder = codec.daemon_side()
    frame = codec.encode(Step([Delta(1, text)]))
    found = [
        m for at in range(0, len(frame), 1 << 16) for m in decoder.feed(frame[at : at + (1 << 16)])
    ]
    assert [delta.content for step in found if isinstance(step, Step) for delta in step.deltas] == [
        text
    ]


def test_edge_49_no_look_back_reaches_the_sampler() -> None:
    assert merge({"repeat_last_n": 0}).sampling().repeat_last_n == 0
    assert merge({"repeat_last_n": 64}, {"repeat_last_n": 0}).sampling().repeat_last_n == 0
