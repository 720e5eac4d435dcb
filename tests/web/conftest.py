"""The real application over a store with reference models, which need no engine library."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from lhama_testing_http import Server, serving

from lhama.backends.reference import model
from lhama.backends.reference.model import Behaviour

Create = Callable[..., Awaitable[None]]


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    async with serving(tmp_path / "models") as server:
        yield server


@pytest.fixture
def create(server: Server, tmp_path: Path) -> Create:
    """``await create(name, behaviour, **members of the create request)``"""

    async def make(name: str, behaviour: Behaviour = Behaviour(), **members: Any) -> None:
        file = tmp_path / "reference.gguf"
        model.write(file, behaviour)
        data = file.read_bytes()
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        await server.send("POST", f"/api/blobs/{digest}", data)
        body = {"model": name, "files": {"model.gguf": digest}, "stream": False, **members}
        reply = await server.send("POST", "/api/create", body)
        assert reply.json() == {"status": "success"}

    return make
