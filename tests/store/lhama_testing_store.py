"""What the store's tests share: making models, and recordings in their order."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
from lhama_testing_golden import Recording
from lhama_testing_golden import recordings as parameters
from lhama_testing_worker import worker

from lhama.daemon.errors import RegistryError
from lhama.daemon.protocol.replies import Progress
from lhama.daemon.protocol.types import CreateRequest
from lhama.daemon.store import ModelName, Store, create
from lhama.daemon.worker import Worker
from lhama.plugins import gguf


def recordings(*groups: str) -> list[Recording]:
    """Exchanges of these groups in the order in which they were made; skips without them."""
    found = [parameter.values[0] for parameter in parameters(*groups)]
    if found == [None]:
        pytest.skip("no recordings beside this checkout")
    return found


def recording(name: str) -> Recording:
    return next(r for r in recordings(name.split("_")[0]) if r.name == name)


async def no_registry(name: ModelName) -> AsyncGenerator[Progress, None]:
    """A pull of nothing."""
    yield Progress("pulling manifest")
    raise RegistryError("pull model manifest: file does not exist")


def run(store: Store, request: CreateRequest, tools: Worker | None = None) -> list[Progress]:
    """A create from beginning to end."""

    async def lines() -> list[Progress]:
        making = create.create(store, request, no_registry, tools or worker())
        return [line async for line in making]

    return asyncio.run(lines())


def make(store: Store, tools: Worker | None = None, **fields: Any) -> list[str]:
    """Make a model and return the lines. ``from`` is spelled ``from_``."""
    return [progress.status for progress in run(store, CreateRequest(**fields), tools)]


def tiny_gguf(path: Path, **metadata: Any) -> bytes:
    """A valid GGUF of some hundred bytes; dots in keys are spelled ``__``."""
    keys = {"general.architecture": "test", "test.context_length": 64}
    keys.update({key.replace("__", "."): value for key, value in metadata.items()})
    gguf.write(path, keys, {"t": ((4,), "F32", struct.pack("<4f", 1, 2, 3, 4))})
    return path.read_bytes()
