"""Ollama's own Python client pulls and pushes through the real application."""

from __future__ import annotations

import functools
from pathlib import Path

import ollama
import pytest
from lhama_testing_http import create_reference, serving
from lhama_testing_pulls import weights
from lhama_testing_registry import Registry


async def test_pull_and_push(registry: Registry, tmp_path: Path) -> None:
    registry.add_model("library/tiny", weights(300_000), license="L")
    async with (
        serving(tmp_path / "models", identity=tmp_path / "id") as server,
        ollama.AsyncClient(host=server.settings.url) as client,
    ):
        name = f"{registry.host}/library/tiny"
        lines = [line async for line in await client.pull(name, insecure=True, stream=True)]
        assert lines[0].status == "pulling manifest"
        assert lines[-1].status == "success"
        assert any(line.completed == line.total == 300_000 for line in lines)
        assert (await client.pull(name, insecure=True)).status == "success"
        assert [model.model for model in (await client.list()).models] == [f"{name}:latest"]

        create = functools.partial(create_reference, server, tmp_path)
        await create(f"{registry.host}/user/mine", system="S")
        pushed = await client.push(f"{registry.host}/user/mine", insecure=True)
        assert pushed.status == "success"
        assert "user/mine:latest" in registry.manifests

        with pytest.raises(ollama.ResponseError, match="file does not exist"):
            await client.pull(f"{registry.host}/library/nope", insecure=True)
