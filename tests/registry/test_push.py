"""Push: what is sent, in which parts and where, and its lines."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
from contextlib import aclosing

import pytest
from lhama_testing_pulls import QUICK, statuses, weights
from lhama_testing_registry import MANIFEST_TYPE, Registry, serving

from lhama.daemon.config import Settings
from lhama.daemon.errors import RegistryError, StoreError
from lhama.daemon.protocol.replies import Progress
from lhama.daemon.registry import RegistryClient
from lhama.daemon.store import Digest, ModelName, Store, manifests
from lhama.daemon.store.manifests import Layer, Manifest

SIZE = 200_000
DATA = weights(SIZE)


def store_model(store: Store, name: str, source: str = "", data: bytes = DATA) -> Manifest:
    """A model of one blob (in four parts) and a small config."""
    with store.pinned(()) as pin:
        layers = []
        for media_type, blob in ((manifests.MODEL, data), (manifests.CONFIG, b"{}")):
            pin(Digest.of(blob))
            digest, _ = store.blobs.write(blob)
            layers.append(Layer(media_type, digest, len(blob), source))
        manifest = Manifest(dataclasses.replace(layers[1], source=""), (layers[0],))
        store.write_manifest(ModelName.parse(name), manifest)
    return manifest


async def push(client: RegistryClient, text: str) -> list[Progress]:
    async with aclosing(client.push(text, insecure=True)) as lines:
        return [line async for line in lines]


@pytest.fixture
def name(registry: Registry, store: Store) -> str:
    name = f"{registry.host}/user/mine"
    store_model(store, name)
    return name


async def test_a_model_goes_with_ollamas_lines(
    client: RegistryClient, registry: Registry, store: Store, name: str
) -> None:
    lines = await push(client, name)
    config = Digest.of(b"{}")
    assert statuses(lines) == [
        "retrieving manifest",
        f"pushing {Digest.of(DATA).short}",
        f"pushing {config.short}",
        "pushing manifest",
        "success",
    ]
    assert [line for line in lines if line.digest == str(config)][-1].completed == 2
    assert registry.blobs[str(Digest.of(DATA))] == DATA
    sent = registry.manifests["user/mine:latest"]
    stored = store.catalogue.read(ModelName.parse(name))
    assert stored is not None
    assert sent + b"\n" == store.catalogue.path(ModelName.parse(name)).read_bytes()
    (put,) = registry.requests("PUT", "manifests")
    assert put.headers["Content-Type"] == MANIFEST_TYPE


async def test_parts_in_order_where_the_registry_takes_them(
    client: RegistryClient, registry: Registry, name: str
) -> None:
    await push(client, name)
    parts = [seen for seen in registry.requests("PATCH", "uploads") if seen.served > 2]
    size = QUICK.smallest_part
    assert [seen.headers["Content-Range"] for seen in parts] == [
        f"{at}-{min(at + size, SIZE) - 1}" for at in range(0, SIZE, size)
    ]
    assert {seen.headers["X-Redirect-Uploads"] for seen in parts} == {"1"}
    # Each answer names the place of the next, and all of it is kept to the letter.
    assert [seen.query["_state"] for seen in parts] == ["a/b=", "c+d", "c+d", "c+d"]
    finish = registry.finished[0]
    sums = [hashlib.md5(DATA[at : at + size]).digest() for at in range(0, SIZE, size)]
    assert finish == {
        "_state": "c+d",
        "digest": str(Digest.of(DATA)),
        "etag": f"{hashlib.md5(b''.join(sums)).hexdigest()}-4",
    }


async def test_parts_in_parallel_where_they_are_sent_elsewhere(
    client: RegistryClient, registry: Registry, name: str
) -> None:
    registry.redirect_uploads = True
    await push(client, name)
    assert registry.blobs[str(Digest.of(DATA))] == DATA
    put = [seen for seen in registry.requests("PUT", "/upload/") if seen.served > 2]
    assert {seen.at for seen in put} == {"elsewhere"}
    assert sum(seen.served for seen in put) == SIZE
    assert not any("Authorization" in seen.headers for seen in put)
    assert not any("Content-Range" in seen.headers for seen in put)
    assert registry.finished[0]["etag"].endswith("-4")


async def test_what_the_registry_has_is_not_sent(
    client: RegistryClient, registry: Registry, name: str
) -> None:
    await push(client, name)
    registry.seen.clear()
    lines = await push(client, name)
    assert [line.completed for line in lines if line.digest] == [SIZE, 2]
    assert {seen.method for seen in registry.seen} == {"HEAD", "PUT"}


async def test_a_layer_of_another_model_is_mounted(
    client: RegistryClient, registry: Registry, store: Store
) -> None:
    name = f"{registry.host}/user/mine"
    store_model(store, name, source=f"{registry.host}/library/base:7b")
    digest = str(Digest.of(DATA))
    registry.mountable.add(digest)
    lines = await push(client, name)
    (asked,) = [seen for seen in registry.requests("POST", "uploads") if seen.query]
    assert asked.query == {"mount": digest, "from": "library/base"}
    assert digest not in registry.blobs
    assert [line.completed for line in lines if line.digest == digest] == [SIZE]


@pytest.mark.parametrize("elsewhere", [False, True])
async def test_a_part_that_fails_is_sent_again(
    client: RegistryClient, registry: Registry, name: str, elsewhere: bool
) -> None:
    registry.redirect_uploads = elsewhere
    registry.upload_faults.extend([503, 500, 429])
    await push(client, name)
    assert registry.blobs[str(Digest.of(DATA))] == DATA


async def test_a_part_that_is_refused_ends_the_push(
    client: RegistryClient, registry: Registry, name: str
) -> None:
    registry.upload_faults.append(413)
    with pytest.raises(RegistryError, match=r"^413: a fault$"):
        await push(client, name)
    assert "user/mine:latest" not in registry.manifests


async def test_parts_that_keep_failing_end_the_push(
    client: RegistryClient, registry: Registry, name: str
) -> None:
    registry.upload_faults.extend([503] * 100)
    with pytest.raises(RegistryError, match=r"^max retries exceeded: 503: a fault$"):
        await push(client, name)


@pytest.mark.fault(18)
@pytest.mark.parametrize("elsewhere", [False, True])
@pytest.mark.parametrize("size", [SIZE, 48 << 20], ids=["not answered", "not read"])
async def test_a_part_that_stands_still_is_sent_again(
    settings: Settings, registry: Registry, store: Store, size: int, elsewhere: bool
) -> None:
    """What the kernels' buffers hold is as good as sent, and waits for an answer; more is not."""
    registry.redirect_uploads = elsewhere
    registry.upload_stalls = 2
    impatient = dataclasses.replace(QUICK, standstill=0.5, smallest_part=size)
    name, data = f"{registry.host}/user/mine", bytes(size)
    store_model(store, name, data=data)
    await push(RegistryClient(settings, store, manner=impatient), name)
    assert registry.upload_stalls == 0
    assert registry.blobs[str(Digest.of(data))] == data


@pytest.mark.parametrize(
    ("size", "reason"),
    [(SIZE, "net/http: timeout awaiting response headers"), (48 << 20, "write tcp .*i/o timeout")],
)
async def test_a_registry_that_takes_nothing_ends_the_push(
    settings: Settings, registry: Registry, store: Store, size: int, reason: str
) -> None:
    registry.upload_stalls = 100
    impatient = dataclasses.replace(QUICK, standstill=0.1, smallest_part=size, tries=2)
    name = f"{registry.host}/user/mine"
    store_model(store, name, data=bytes(size))
    with pytest.raises(RegistryError, match=rf"^max retries exceeded: Patch .*{reason}"):
        await push(RegistryClient(settings, store, manner=impatient), name)


async def test_a_registry_that_asks_for_time_gets_it(
    client: RegistryClient, registry: Registry, name: str
) -> None:
    registry.upload_faults.append(429)
    registry.retry_after = "1"
    await push(client, name)
    first, second = registry.requests("PATCH", "uploads")[:2]
    assert second.time - first.time >= 1


async def test_progress_comes_while_a_part_is_under_way(
    settings: Settings, store: Store, registry: Registry, name: str
) -> None:
    lines = await push(RegistryClient(settings, store), name)  # one part, as in earnest
    (last,) = [line for line in lines if line.digest == str(Digest.of(DATA))][-1:]
    assert (last.completed, last.total) == (SIZE, SIZE)
    assert registry.finished[0]["etag"].endswith("-1")


async def test_a_blob_that_is_missing_here(
    client: RegistryClient, store: Store, registry: Registry, name: str
) -> None:
    store.blobs.path(Digest.of(DATA)).unlink()
    with pytest.raises(StoreError, match="is missing from the store: pull or create"):
        await push(client, name)


async def test_a_blob_being_sent_is_not_removed(
    client: RegistryClient, store: Store, registry: Registry, name: str
) -> None:
    gate = asyncio.Event()
    registry.upload_gate = gate
    pushing = asyncio.create_task(push(client, name))
    while not registry.requests("PATCH", "uploads"):  # noqa: ASYNC110
        await asyncio.sleep(0.005)
    store.delete(ModelName.parse(name))
    gate.set()
    await pushing
    assert registry.blobs[str(Digest.of(DATA))] == DATA


@pytest.mark.parametrize("location", ["http://169.254.169.254/x", "http://127.0.0.1:1/x"])
async def test_an_upload_is_not_led_astray(
    client: RegistryClient, store: Store, monkeypatch: pytest.MonkeyPatch, location: str
) -> None:
    from lhama.daemon.registry import reach
    from lhama.daemon.registry.reach import Zone, zone

    monkeypatch.setattr(reach, "zone", lambda a: Zone.PUBLIC if a == "127.0.0.2" else zone(a))
    async with serving(host="127.0.0.2") as outside:
        name = f"{outside.host}/user/mine"
        store_model(store, name)
        outside.upload_location = location
        with pytest.raises(RegistryError, match="refused to follow|no registry can be at"):
            await push(client, name)


async def test_tensor_layers_are_one_line_and_their_manifest_is_kept(
    client: RegistryClient, registry: Registry, store: Store
) -> None:
    manifest = store_model(store, f"{registry.host}/user/mine")
    tensor = dataclasses.replace(manifest.layers[0], media_type=manifests.TENSOR, name="w")
    data = manifests.encode(Manifest(manifest.config, (tensor,))).replace(
        b'"name":"w"', b'"name":"w","dtype":"bf16"'
    )
    name = ModelName.parse(f"{registry.host}/user/mine")
    store.write_manifest(name, manifests.decode(data), data)
    lines = await push(client, str(name))
    assert statuses(lines) == ["retrieving manifest", "pushing model", "success"]
    assert {(line.digest, line.total) for line in lines[1:-1]} == {("sha256:model", SIZE + 2)}
    assert lines[-2].completed == SIZE + 2
    assert registry.manifests["user/mine:latest"] == data


async def test_case_does_not_matter(client: RegistryClient, registry: Registry, name: str) -> None:
    await push(client, name.replace("user/mine", "USER/Mine") + ":LATEST")
    assert list(registry.manifests) == ["user/mine:latest"]


@pytest.mark.parametrize(
    ("text", "full"),
    [
        ("bad name!", "registry.ollama.ai/library/bad name!:latest"),
        ("a/b/c/d", "a/b/c/d:latest"),
        ("x:", "registry.ollama.ai/library/x:!MISSING!"),
    ],
)
async def test_names_that_are_none(client: RegistryClient, text: str, full: str) -> None:
    lines: list[Progress] = []

    async def run() -> None:
        async for line in client.push(text):
            lines.append(line)  # noqa: PERF401

    with pytest.raises(RegistryError) as refused:
        await run()
    assert statuses(lines) == ["retrieving manifest", "couldn't retrieve manifest"]
    assert refused.value.message == f"unqualified name: {full}"
