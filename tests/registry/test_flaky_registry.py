"""A registry that cuts, stalls, lies about lengths and ranges: retried, and never believed."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from lhama_testing_pulls import QUICK, blob_files, pull, until, walk, weights
from lhama_testing_registry import Fault, Registry

from lhama.daemon.config import Settings
from lhama.daemon.errors import RegistryError
from lhama.daemon.protocol.replies import Progress
from lhama.daemon.registry import RegistryClient
from lhama.daemon.registry.replies import retry_after
from lhama.daemon.store import Store
from lhama.daemon.store.partial import Part, Partial

PATH = "library/tiny"
SIZE = 200_000
PART = QUICK.smallest_part


@pytest.fixture
def digest(registry: Registry) -> str:
    """Of a blob in four parts."""
    return str(registry.add_model(PATH, weights(SIZE))["layers"][0]["digest"])


PASSING: dict[str, Sequence[Fault]] = {
    "cut": [Fault(after=10_000)] * 3,
    "cut before the first byte": [Fault(after=0)] * 3,
    "ends early": [Fault(after=20_000, then="end"), Fault(after=0, then="end")],
    "stalls": [Fault(after=10_000, then="stall")],
    "overloaded": [Fault(status=503), Fault(status=429), Fault(status=500)],
    "an address that ran out": [Fault(), Fault(status=403), Fault(status=404), Fault(status=401)],
    "another range": [Fault(shift=1), Fault(shift=-1)],
    "a wrong length": [Fault(total=SIZE + 1), Fault(total=SIZE - 1)],
    "the whole blob at times": [Fault(), Fault(status=200), Fault(status=200)],
    "everything": [
        Fault(after=1),
        Fault(status=200),
        Fault(shift=7),
        Fault(total=1),
        Fault(after=30_000),
        Fault(status=502),
        Fault(after=5, then="stall"),
        Fault(after=PART - 1),
    ],
}


@pytest.mark.fault(18)
@pytest.mark.parametrize("kind", list(PASSING))
async def test_what_passes_is_tried_again(
    client: RegistryClient, registry: Registry, store: Store, digest: str, kind: str
) -> None:
    registry.fail(digest, *PASSING[kind])
    lines = await pull(client, registry, PATH)
    assert not registry.faults[digest], "every fault was met"
    assert walk(store.root)
    reached = [line.completed for line in lines if line.digest == digest]
    assert reached == sorted(reached)
    assert reached[-1] == SIZE


async def test_a_part_goes_on_where_it_was_cut(
    client: RegistryClient, registry: Registry, digest: str
) -> None:
    registry.fail(digest, Fault(after=10_000), Fault(after=30_000))
    await pull(client, registry, PATH)
    assert registry.served(digest) == SIZE


async def test_edge_51_bytes_beyond_the_range_are_not_taken(
    client: RegistryClient, registry: Registry, store: Store, digest: str
) -> None:
    """Part 0 is answered by the whole blob: it ends at its size, not where the body ends."""
    registry.fail(digest, Fault(status=200))
    await pull(client, registry, PATH)
    assert walk(store.root)


async def test_what_does_not_pass_is_given_up(
    client: RegistryClient, registry: Registry, store: Store, digest: str
) -> None:
    registry.fail(digest, *[Fault(after=0)] * 100)
    with pytest.raises(RegistryError, match=r"^max retries exceeded: unexpected EOF"):
        await pull(client, registry, PATH)
    assert store.list() == []
    registry.faults.clear()
    await pull(client, registry, PATH)
    assert walk(store.root)


async def test_a_stall_without_end_is_given_up(
    settings: Settings, registry: Registry, store: Store, digest: str
) -> None:
    impatient = dataclasses.replace(QUICK, silence=0.1, tries=2)
    registry.fail(digest, *[Fault(after=0, then="stall")] * 100)
    with pytest.raises(RegistryError, match=r"^max retries exceeded: .*timeout|stalled"):
        await pull(RegistryClient(settings, store, manner=impatient), registry, PATH)


@pytest.mark.fault(18)
async def test_a_registry_that_asks_for_time_gets_it(
    client: RegistryClient, registry: Registry, digest: str
) -> None:
    registry.fail(digest, *[Fault(status=503)] * 4)
    registry.retry_after = "1"
    await pull(client, registry, PATH)
    asked = [seen.time for seen in registry.requests("GET", f"/data/{digest}")]
    assert len(asked) == 8
    assert min(asked[4:]) - min(asked) >= 1


async def test_a_registry_that_asks_for_hours_is_not_waited_for(
    client: RegistryClient, registry: Registry, digest: str
) -> None:
    registry.fail(digest, *[Fault(status=429)] * 100)
    registry.retry_after = "7200"
    with pytest.raises(RegistryError, match=r"^429: a fault \(Retry-After: 7200\)$"):
        await pull(client, registry, PATH)


def test_how_long_a_registry_asks_for() -> None:
    assert retry_after({"Retry-After": " 12 "}) == 12
    soon = datetime.now(UTC) + timedelta(seconds=90)
    assert 80 < retry_after({"Retry-After": format_datetime(soon, usegmt=True)}) <= 90
    for nonsense in ("", "-5", "soon", "1.5", "Wed, 21 Oct 2015 07:28:00 GMT", "Wed, 99 Oct 2015"):
        assert retry_after({"Retry-After": nonsense}) == 0
    assert retry_after({}) == 0
    assert retry_after({"Retry-After": "9" * 500}) > 1e300


async def test_a_blob_that_is_not_there_is_not_tried_again(
    client: RegistryClient, registry: Registry, digest: str
) -> None:
    del registry.blobs[digest]
    with pytest.raises(RegistryError, match=r"^file does not exist$"):
        await pull(client, registry, PATH)
    assert len(registry.requests("GET", digest)) <= 2  # one part may have asked meanwhile


@pytest.mark.fault(18)
async def test_progress_never_falls(
    client: RegistryClient, registry: Registry, digest: str
) -> None:
    registry.fail(digest, *[Fault(after=40_000), Fault(after=100), Fault(after=0)] * 3)
    lines: list[Progress] = []
    await pull(client, registry, PATH, lines)
    completed = [line.completed for line in lines if line.digest == digest]
    assert completed == sorted(completed)


async def test_without_ranges_a_blob_of_one_part_still_comes(
    settings: Settings, registry: Registry, store: Store, digest: str
) -> None:
    """And is resumed by reading over what is here already."""
    whole = dataclasses.replace(QUICK, smallest_part=SIZE)
    registry.fail(digest, Fault(status=200, after=SIZE // 2), *[Fault(status=200)] * 9)
    await pull(RegistryClient(settings, store, manner=whole), registry, PATH)
    assert walk(store.root)


async def test_without_ranges_parts_are_refused(
    client: RegistryClient, registry: Registry, digest: str
) -> None:
    registry.fail(digest, *[Fault(status=200)] * 100)
    with pytest.raises(RegistryError, match="serves the blob in one piece only"):
        await pull(client, registry, PATH)


async def test_no_more_than_some_parts_at_once(
    settings: Settings, registry: Registry, store: Store, digest: str
) -> None:
    gate = asyncio.Event()
    registry.fail(digest, *[Fault(after=1, gate=gate)] * 4)
    two = dataclasses.replace(QUICK, parallel=2, silence=30.0)
    pulling = asyncio.create_task(pull(RegistryClient(settings, store, manner=two), registry, PATH))
    while registry.served(digest) < 2:  # noqa: ASYNC110
        await asyncio.sleep(0.005)
    await asyncio.sleep(0.05)
    assert len(registry.requests("GET", f"/data/{digest}")) == 2
    gate.set()
    await pulling
    assert len(registry.requests("GET", f"/data/{digest}")) == 4


async def test_what_arrived_is_left_for_the_next_pull(
    client: RegistryClient, registry: Registry, store: Store, digest: str
) -> None:
    registry.fail(digest, *[Fault(after=10_000)] + [Fault(status=503)] * 100)
    with pytest.raises(RegistryError, match=r"^max retries exceeded: 503: a fault"):
        await pull(client, registry, PATH)
    assert f"{digest.replace(':', '-')}-partial" in blob_files(store)
    served = registry.served(digest)
    assert served == 10_000
    registry.faults.clear()
    await pull(client, registry, PATH)
    assert registry.served(digest) == SIZE


async def test_a_pull_cancelled_within_a_write_loses_and_doubles_nothing(
    client: RegistryClient,
    registry: Registry,
    store: Store,
    digest: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    writing, write = threading.Event(), Partial.write

    def slowly(self: Partial, part: Part, data: bytes) -> None:
        writing.set()
        time.sleep(0.1)
        write(self, part, data)

    monkeypatch.setattr(Partial, "write", slowly)
    registry.fail(digest, *[Fault(after=20_000, gate=asyncio.Event())] * 3)
    pulling = asyncio.create_task(pull(client, registry, PATH))
    await until(writing.is_set)
    pulling.cancel()
    await asyncio.wait({pulling})
    await pull(client, registry, PATH)
    assert walk(store.root)
    assert registry.served(digest) == SIZE
