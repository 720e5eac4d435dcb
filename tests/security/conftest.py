"""The real application over an empty store."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from lhama_testing_http import Create, Server, create_reference, serving


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    async with serving(tmp_path / "models") as server:
        yield server


@pytest.fixture
def create(server: Server, tmp_path: Path) -> Create:
    return functools.partial(create_reference, server, tmp_path)
