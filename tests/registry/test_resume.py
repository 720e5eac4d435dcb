"""A pull that is killed, as users and kernels kill it, and what the next one finds."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
from lhama_testing_daemon import Daemon, running
from lhama_testing_pulls import until, walk, weights
from lhama_testing_registry import Fault, Registry

from lhama.backends.reference import model
from lhama.daemon.registry.manner import DEFAULT_MANNER
from lhama.daemon.store.partial import Part

PATH = "library/big"
SIZE = 48 << 20
HALF = SIZE // 2
WRITE = 1 << 20
"""What may be on its way to the disk."""


@pytest.fixture
def digest(registry: Registry, tmp_path: Path) -> str:
    """Of a real model of 48 MB, which stands still at its half until a test goes on."""
    path = tmp_path / "weights.gguf"
    model.write(path)
    content = path.read_bytes() + weights(SIZE - path.stat().st_size)
    return str(registry.add_model(PATH, content, template="{{ .Prompt }}")["layers"][0]["digest"])


@asynccontextmanager
async def lhama_pull(
    daemon: Daemon, registry: Registry
) -> AsyncIterator[asyncio.subprocess.Process]:
    """The command as a process of its own; killed in the end if it still runs."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "lhama.daemon.cli"),
        *("pull", f"{registry.host}/{PATH}", "--insecure"),
        env={**os.environ, "OLLAMA_HOST": daemon.url},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def pull_again(daemon: Daemon, registry: Registry) -> list[str]:
    async with lhama_pull(daemon, registry) as process:
        _, shown = await process.communicate()
        assert process.returncode == 0, shown
        return shown.decode().splitlines()


def recorded(daemon: Daemon, digest: str) -> int:
    """The bytes that the records on the disk vouch for."""
    name = f"{digest.replace(':', '-')}-partial-*"
    parts = [
        msgspec.json.decode(path.read_bytes(), type=Part)
        for path in (daemon.store / "blobs").glob(name)
    ]
    return sum(part.completed for part in parts)


@pytest.mark.fault(17)
async def test_the_daemon_killed_at_half(registry: Registry, digest: str, tmp_path: Path) -> None:
    registry.fail(digest, Fault(after=HALF, gate=asyncio.Event()))
    store = tmp_path / "models"
    with running(store) as daemon:
        async with lhama_pull(daemon, registry) as process:
            await until(lambda: registry.served(digest) == HALF)
            # No more than this is ever at stake.
            await until(lambda: recorded(daemon, digest) >= HALF - DEFAULT_MANNER.save_bytes)
            daemon.process.kill()
            await asyncio.to_thread(daemon.process.wait)
            known = recorded(daemon, digest)
            _, shown = await process.communicate()
            assert process.returncode == 1
            assert b"lost the server" in shown
    with running(store) as daemon:
        assert daemon.call("/api/tags") == {"models": []}
        lines = await pull_again(daemon, registry)
        assert lines[-1] == "success"
        assert registry.served(digest) == HALF + (SIZE - known)
        (listed,) = daemon.call("/api/tags")["models"]
        assert listed["name"] == f"{registry.host}/{PATH}:latest"
        walk(store)
        # And it is a model: it answers.
        body = {"model": listed["name"], "prompt": "x", "stream": False}
        options = {"options": {"num_predict": 2}}
        answer = await asyncio.to_thread(daemon.call, "/api/generate", body | options)
        assert answer["eval_count"] == 2


@pytest.mark.fault(17)
async def test_the_command_killed_at_half(registry: Registry, digest: str, tmp_path: Path) -> None:
    registry.fail(digest, Fault(after=HALF, gate=asyncio.Event()))
    with running(tmp_path / "models") as daemon:
        async with lhama_pull(daemon, registry) as process:
            await until(lambda: recorded(daemon, digest) >= HALF - WRITE)
            process.kill()
        await until(lambda: not registry.sending)  # the daemon noticed, and hung up too
        lines = await pull_again(daemon, registry)
        assert lines[-1] == "success"
        assert registry.served(digest) <= SIZE + WRITE
        walk(tmp_path / "models")


@pytest.mark.fault(17)
async def test_the_daemon_stopped_at_half(registry: Registry, digest: str, tmp_path: Path) -> None:
    registry.fail(digest, Fault(after=HALF, gate=asyncio.Event()))
    store = tmp_path / "models"
    with running(store, LHAMA_SHUTDOWN_GRACE="100ms") as daemon:
        async with lhama_pull(daemon, registry):
            await until(lambda: recorded(daemon, digest) >= HALF - WRITE)
            daemon.process.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(daemon.process.wait) == 0
        assert recorded(daemon, digest) == HALF
    with running(store) as daemon:
        assert (await pull_again(daemon, registry))[-1] == "success"
        assert registry.served(digest) == SIZE
        walk(store)
