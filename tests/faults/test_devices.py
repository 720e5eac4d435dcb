"""An accelerator that is there, and then is not. No card is needed: what backends find is told."""

from __future__ import annotations

from pathlib import Path

import pytest
from lhama_testing_http import Reply, Server, create_reference, serving

from lhama.plugins.backend import Device, Probe
from lhama.plugins.registry import Registry

GIB = 1 << 30
CPU = Device("cpu", "cpu", "processor", 8 * GIB, 8 * GIB)
CARD = Device("cuda:0", "cuda", "a card", 80 * GIB, 80 * GIB)


async def generate(server: Server, **options: int) -> Reply:
    """One answer, after which the model goes."""
    options = {"num_predict": 1, **options}
    body = {"model": "ref", "prompt": "x", "stream": False, "keep_alive": 0, "options": options}
    return await server.ask("POST /api/generate", body)


@pytest.mark.fault(35)
async def test_a_card_that_is_lost_is_not_replaced_in_silence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [CPU, CARD]
    monkeypatch.setattr(Registry, "probe", lambda registry, backend: Probe(tuple(found)))
    async with serving(tmp_path / "models") as server:
        await create_reference(server, tmp_path, "ref")
        assert (await generate(server)).status == 200
        found.remove(CARD)
        reply = await generate(server)
        assert reply.status == 500
        assert "cuda:0 was there and is not" in reply.json()["error"]
        ready = await server.ask("GET /health/ready")
        assert (ready.status, ready.json()["reasons"]) == (503, ["the device cuda:0 is gone"])
        assert (await server.ask("GET /health/live")).status == 200
        assert (await generate(server, num_gpu=0)).status == 200, "asked for, the processor will do"
        found.append(CARD)
        assert (await generate(server)).status == 200
        assert (await server.ask("GET /health/ready")).status == 200


async def test_a_machine_without_a_card_misses_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Registry, "probe", lambda registry, backend: Probe((CPU,)))
    async with serving(tmp_path / "models") as server:
        await create_reference(server, tmp_path, "ref")
        assert (await generate(server)).status == 200
        assert (await server.ask("GET /health/ready")).status == 200
