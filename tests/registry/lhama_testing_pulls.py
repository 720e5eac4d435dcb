"""What the tests of pull share."""

from __future__ import annotations

import asyncio
import hashlib
import random
import re
from collections.abc import Callable, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

import msgspec
from lhama_testing_registry import Registry

from lhama.daemon.protocol.replies import Progress
from lhama.daemon.registry import RegistryClient
from lhama.daemon.registry.manner import Manner
from lhama.daemon.store import ModelName, Store

QUICK = Manner(smallest_part=64 * 1024, silence=0.3, pause=0.001, tries=4, save_bytes=1 << 16)
"""Small parts, little patience."""


def name_of(registry: Registry, path: str) -> ModelName:
    return ModelName.parse(f"{registry.host}/{path}")


async def pull(
    client: RegistryClient, registry: Registry, path: str, lines: list[Progress] | None = None
) -> list[Progress]:
    """A whole pull without TLS; its lines, in ``lines`` as they come."""
    lines = [] if lines is None else lines
    async with aclosing(client.pull(name_of(registry, path), insecure=True)) as steps:
        async for line in steps:
            lines.append(line)
    return lines


async def until(true: Callable[[], bool]) -> None:
    """Wait for something to become true; the test's own timeout ends what never does."""
    while not true():  # noqa: ASYNC110
        await asyncio.sleep(0.005)


def statuses(lines: Sequence[Progress]) -> list[str]:
    """The lines' statuses, neighbours that are equal counted once."""
    found = [line.status for line in lines]
    return [status for at, status in enumerate(found) if at == 0 or found[at - 1] != status]


def weights(size: int, seed: int = 0) -> bytes:
    """Bytes of which no range is like another."""
    return random.Random(seed).randbytes(size)


def short(layer: dict[str, Any]) -> str:
    return str(layer["digest"])[7:19]


def walk(root: Path, *, unfinished: bool = False) -> dict[str, list[str]]:
    """The store by Ollama's layout rules, every file of it accounted for.

    Returns each model's digests, by its path below ``manifests``. Fails where a blob is missing,
    is not what its name says, or where a file has no place in the layout. ``unfinished``: downloads
    that were given up may lie there too.
    """
    models: dict[str, list[str]] = {}
    for path in sorted((root / "manifests").rglob("*")):
        if path.is_dir():
            continue
        assert len(path.relative_to(root / "manifests").parts) == 4, path
        manifest = msgspec.json.decode(path.read_bytes())
        assert manifest["schemaVersion"] == 2
        layers = [*manifest["layers"], manifest["config"]]
        for layer in layers:
            blob = root / "blobs" / layer["digest"].replace(":", "-")
            content = blob.read_bytes()
            assert len(content) == layer["size"], blob
            assert hashlib.sha256(content).hexdigest() == blob.name.removeprefix("sha256-")
        models[str(path.relative_to(root / "manifests"))] = [la["digest"] for la in layers]
    for path in (root / "blobs").iterdir():
        pattern = r"sha256-[0-9a-f]{64}" + (r"(-partial(-\d+)?)?" if unfinished else "")
        assert re.fullmatch(pattern, path.name), path
    own = {".lhama.lock", ".lhama.pid"}
    assert {path.name for path in root.iterdir()} <= {"blobs", "manifests"} | own
    return models


def blob_files(store: Store) -> list[str]:
    return sorted(path.name for path in store.blobs.folder.iterdir())
