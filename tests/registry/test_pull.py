"""Pull: its lines, its effect on the store, and what it makes of a registry's manifest."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from lhama_testing_pulls import blob_files, pull, short, statuses, until, walk, weights
from lhama_testing_registry import IMAGE, Fault, Registry

from lhama.daemon.errors import LhamaError, RegistryError
from lhama.daemon.protocol.replies import Progress
from lhama.daemon.registry import RegistryClient
from lhama.daemon.store import Digest, ModelName, Store

PATH = "library/tiny"


async def test_a_model_comes_with_ollamas_lines(
    client: RegistryClient, registry: Registry, store: Store
) -> None:
    manifest = registry.add_model(PATH, weights(300_000), template="{{ .Prompt }}", license="L")
    lines = await pull(client, registry, PATH)
    layers = [*manifest["layers"], manifest["config"]]
    assert statuses(lines) == [
        "pulling manifest",
        *(f"pulling {short(layer)}" for layer in layers),
        "verifying sha256 digest",
        "writing manifest",
        "success",
    ]
    for layer in layers:
        own = [line for line in lines if line.digest == layer["digest"]]
        assert {line.total for line in own} == {layer["size"]}
        assert own[-1].completed == layer["size"]
    (model,) = store.list()
    assert model.name.short == f"{registry.host}/{PATH}:latest"
    assert model.go_template == "{{ .Prompt }}"
    # The registry's own bytes: their digest is the model's.
    assert model.digest == hashlib.sha256(registry.manifests[f"{PATH}:latest"]).hexdigest()
    assert len(walk(store.root)) == 1


async def test_what_is_here_is_one_line_and_not_asked_for(
    client: RegistryClient, registry: Registry
) -> None:
    registry.add_model(PATH, weights(1000), license="L")
    await pull(client, registry, PATH)
    registry.seen.clear()
    lines = await pull(client, registry, PATH)
    blobs = [line for line in lines if line.digest]
    assert len(blobs) == 3
    assert all(line.completed == line.total for line in blobs)
    assert [seen.path for seen in registry.seen] == [f"/v2/{PATH}/manifests/latest"]


async def test_a_blob_comes_in_parallel_parts_from_where_the_registry_sends_us(
    client: RegistryClient, registry: Registry
) -> None:
    data = weights(1_000_000)
    digest = registry.add_model(PATH, data)["layers"][0]["digest"]
    await pull(client, registry, PATH)
    asked = registry.requests("GET", digest)
    here = [seen for seen in asked if seen.at == "registry"]
    there = [seen for seen in asked if seen.at == "elsewhere"]
    assert len(here) == 1
    assert len(there) == 16  # 64 KiB each in this test, 100 MB in earnest
    assert sum(seen.served for seen in there) == len(data)
    assert {seen.query["sig"] for seen in there} == {"a/b"}
    assert all("Authorization" not in seen.headers for seen in there)


async def test_a_registry_may_serve_blobs_itself(
    client: RegistryClient, registry: Registry, store: Store
) -> None:
    """Ollama fails here: ``http: no Location header in response``."""
    registry.elsewhere = ""
    registry.add_model(PATH, weights(300_000))
    await pull(client, registry, PATH)
    assert walk(store.root)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_any_redirect_will_do(
    client: RegistryClient, registry: Registry, store: Store, status: int
) -> None:
    registry.redirect_status = status
    registry.add_model(PATH, weights(1000))
    await pull(client, registry, PATH)
    assert walk(store.root)


async def test_an_empty_layer_and_one_named_twice(
    client: RegistryClient, registry: Registry, store: Store
) -> None:
    empty = {"mediaType": IMAGE + "license", **registry.add_blob(b"")}
    layer = {"mediaType": IMAGE + "model", **registry.add_blob(b"w")}
    config = registry.add_model("library/other", b"x")["config"]
    registry.add_manifest(PATH, [layer, empty, layer], config)
    lines = await pull(client, registry, PATH)
    assert len([line for line in lines if line.digest == layer["digest"]]) >= 2
    assert walk(store.root)


async def test_a_new_version_replaces_the_old_and_its_blobs_go(
    client: RegistryClient, registry: Registry, store: Store
) -> None:
    old = registry.add_model(PATH, b"old", license="L")["layers"][0]["digest"]
    await pull(client, registry, PATH)
    registry.add_model(PATH, b"new", license="L")
    lines = await pull(client, registry, PATH)
    assert statuses(lines)[-3:] == ["writing manifest", "removing unused layers", "success"]
    assert not store.blobs.exists(Digest.parse(old))
    assert walk(store.root)


async def test_without_pruning_the_old_blobs_stay(
    client: RegistryClient, registry: Registry, store: Store
) -> None:
    store.prune = False
    old = registry.add_model(PATH, b"old")["layers"][0]["digest"]
    await pull(client, registry, PATH)
    registry.add_model(PATH, b"new")
    assert "removing unused layers" not in statuses(await pull(client, registry, PATH))
    assert store.blobs.exists(Digest.parse(old))


async def test_case_finds_the_model_that_is_there(
    client: RegistryClient, registry: Registry, store: Store
) -> None:
    registry.add_model(PATH, b"w")
    await pull(client, registry, PATH)
    await pull(client, registry, "LIBRARY/Tiny:LATEST")
    assert len(store.list()) == 1


async def test_a_blob_that_is_cut_off_is_fetched_again(
    client: RegistryClient, registry: Registry, store: Store
) -> None:
    digest = Digest.parse(registry.add_model(PATH, weights(5000))["layers"][0]["digest"])
    await pull(client, registry, PATH)
    store.blobs.path(digest).write_bytes(b"half")
    await pull(client, registry, PATH)
    assert walk(store.root)


class TestSharing:
    """Two pulls of one blob are one download, ended by the last who leaves."""

    async def test_two_pulls_share(
        self, client: RegistryClient, registry: Registry, store: Store
    ) -> None:
        data = weights(300_000)
        digest = registry.add_model("library/a", data)["layers"][0]["digest"]
        registry.add_model("library/b", data)
        await asyncio.gather(
            pull(client, registry, "library/a"), pull(client, registry, "library/b")
        )
        assert registry.served(digest) == len(data)
        assert len(walk(store.root)) == 2

    async def test_the_last_to_leave_ends_it(
        self, client: RegistryClient, registry: Registry, store: Store
    ) -> None:
        data = weights(60_000)
        digest = registry.add_model("library/a", data)["layers"][0]["digest"]
        registry.add_model("library/b", data)
        gate = asyncio.Event()
        registry.fail(digest, Fault(after=30_000, gate=gate))
        lines: dict[str, list[Progress]] = {"a": [], "b": []}
        first, second = (
            asyncio.create_task(pull(client, registry, f"library/{n}", lines[n])) for n in "ab"
        )
        await until(lambda: all(seen and seen[-1].completed for seen in lines.values()))
        first.cancel()
        await asyncio.wait({first})
        second.cancel()
        await asyncio.wait({second})
        # What had arrived is kept.
        assert [name.partition("-partial")[2] for name in blob_files(store)] == ["", "-0"]
        assert registry.served(digest) == 30_000
        await pull(client, registry, "library/a")
        assert registry.served(digest) == len(data)
        assert list(walk(store.root)) == [f"{registry.host}/library/a/latest"]

    async def test_who_stays_gets_the_blob(
        self, client: RegistryClient, registry: Registry, store: Store
    ) -> None:
        data = weights(60_000)
        digest = registry.add_model("library/a", data)["layers"][0]["digest"]
        registry.add_model("library/b", data)
        gate = asyncio.Event()
        registry.fail(digest, Fault(after=30_000, gate=gate))
        lines: dict[str, list[Progress]] = {"a": [], "b": []}
        first, second = (
            asyncio.create_task(pull(client, registry, f"library/{n}", lines[n])) for n in "ab"
        )
        await until(lambda: all(seen and seen[-1].completed for seen in lines.values()))
        first.cancel()
        await asyncio.wait({first})
        gate.set()
        await second
        assert len(registry.requests("GET", f"data/{digest}")) == 1
        assert list(walk(store.root)) == [f"{registry.host}/library/b/latest"]

    async def test_a_failed_download_is_not_joined(
        self, client: RegistryClient, registry: Registry, store: Store
    ) -> None:
        good = registry.add_model("library/a", b"good")["layers"][0]["digest"]
        registry.blobs[good] = b"evil"
        with pytest.raises(RegistryError, match="digest mismatch"):
            await pull(client, registry, "library/a")
        registry.blobs[good] = b"good"
        await pull(client, registry, "library/a")
        assert walk(store.root)


class TestDigests:
    @pytest.mark.fault(19)
    async def test_a_wrong_byte_is_refused(
        self, client: RegistryClient, registry: Registry, store: Store
    ) -> None:
        await _pull_first_version(client, registry)
        manifest = registry.add_model(PATH, b"second", license="L2")
        wanted = manifest["layers"][0]["digest"]
        registry.blobs[wanted] = b"secund"
        found = hashlib.sha256(b"secund").hexdigest()
        lines: list[Progress] = []
        with pytest.raises(RegistryError) as refused:
            await pull(client, registry, PATH, lines)
        assert refused.value.message == (
            f"digest mismatch, file must be downloaded again: want {wanted}, got sha256:{found}"
        )
        assert statuses(lines)[-1] == "verifying sha256 digest"
        (model,) = store.list()
        assert store.blobs.read(model.manifest.layers[0].digest) == b"first"
        assert not [n for n in blob_files(store) if wanted[7:] in n]

    @pytest.mark.cve("2024-37032", "2025-44779", "2026-7020")
    @pytest.mark.parametrize(
        "digest",
        [
            "sha256:../../../../etc/passwd",
            "../../../evil",
            "sha256:" + "0" * 63,
            "sha256:" + "0" * 65,
            "sha256:" + "0" * 63 + "\0",
            "sha256:" + "0" * 32 + "/../" + "0" * 28,
            "sha256-" + "g" * 64,
            "sha512:" + "0" * 64,
            5,
        ],
    )
    @pytest.mark.parametrize("where", ["layer", "config"])
    async def test_a_rogue_digest_touches_nothing(
        self, client: RegistryClient, registry: Registry, store: Store, tmp_path: Path,
        digest: Any, where: str,
    ) -> None:  # fmt: skip
        good = {"mediaType": IMAGE + "model", **registry.add_blob(b"w")}
        bad = {"mediaType": IMAGE + "license", "digest": digest, "size": 1}
        layers, config = ([good, bad], good) if where == "layer" else ([good], bad)
        registry.add_manifest(PATH, layers, config)
        before = _files(tmp_path)
        with pytest.raises(RegistryError, match=r"^pull model manifest: corrupt manifest"):
            await pull(client, registry, PATH)
        assert _files(tmp_path) == before
        assert not registry.requests("GET", "blobs")


class TestManifests:
    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"<!doctype html>",
            b"{",
            b"[]",
            b"null",
            b'{"layers":null}',
            b'{"layers":[null]}',
            b'{"layers":{}}',
            b'{"layers":[{"digest":"sha256:' + b"0" * 64 + b'","size":-1}]}',
            b'{"layers":[{"digest":"sha256:' + b"0" * 64 + b'","size":1e99}]}',
            b'{"layers":[' + b'{"digest":"sha256:%s"},' % (b"0" * 64) * 40_000 + b"{}]}",
            b"[" * 100_000,
            b"\xff\xfe{}",
        ],
        ids=lambda body: body[:20].decode("latin-1"),
    )
    async def test_a_manifest_that_is_none(
        self, client: RegistryClient, registry: Registry, store: Store, body: bytes
    ) -> None:
        registry.manifests[f"{PATH}:latest"] = body
        with pytest.raises(RegistryError, match=r"^pull model manifest: "):
            await pull(client, registry, PATH)
        assert blob_files(store) == []
        assert store.list() == []

    async def test_a_packed_manifest_is_unpacked(
        self, client: RegistryClient, registry: Registry, store: Store
    ) -> None:
        registry.add_model(PATH, b"w")
        packed = gzip.compress(registry.manifests[f"{PATH}:latest"])
        registry.manifests[f"{PATH}:latest"] = packed
        registry.manifest_headers = {"Content-Encoding": "gzip"}
        await pull(client, registry, PATH)
        assert walk(store.root)

    @pytest.mark.cve("2024-12886")
    async def test_a_bomb_is_not_unpacked(
        self, client: RegistryClient, registry: Registry, store: Store
    ) -> None:
        registry.manifests[f"{PATH}:latest"] = gzip.compress(b" " * (64 << 20))
        registry.manifest_headers = {"Content-Encoding": "gzip"}
        with pytest.raises(RegistryError, match="larger than 4194304 bytes"):
            await pull(client, registry, PATH)

    async def test_a_manifest_without_end_is_given_up(
        self, client: RegistryClient, registry: Registry
    ) -> None:
        registry.manifests[f"{PATH}:latest"] = b" " * (5 << 20)
        with pytest.raises(RegistryError, match="larger than 4194304 bytes"):
            await pull(client, registry, PATH)

    async def test_tensor_layers_need_what_is_not_here(
        self, client: RegistryClient, registry: Registry
    ) -> None:
        layer = {"mediaType": IMAGE + "tensor", "name": "t", **registry.add_blob(b"t")}
        registry.add_manifest(PATH, [layer], layer)
        with pytest.raises(RegistryError, match=r"^this model requires MLX support, but the MLX"):
            await pull(client, registry, PATH)

    async def test_a_blob_larger_than_the_disk_is_refused_at_once(
        self, client: RegistryClient, registry: Registry, store: Store
    ) -> None:
        layer = {"mediaType": IMAGE + "model", "digest": "sha256:" + "0" * 64, "size": 1 << 60}
        registry.add_manifest(PATH, [layer], layer)
        with pytest.raises(LhamaError, match=r"^no space left on device while making room for"):
            await pull(client, registry, PATH)
        assert blob_files(store) == []


async def test_a_size_that_the_manifest_leaves_out_is_asked_for(
    client: RegistryClient, registry: Registry, store: Store
) -> None:
    manifest = registry.add_model(PATH, weights(200_000))
    del manifest["layers"][0]["size"]
    registry.manifests[f"{PATH}:latest"] = json.dumps(manifest).encode()
    lines = await pull(client, registry, PATH)
    assert lines[1].total == 200_000
    assert store.list()


async def _pull_first_version(client: RegistryClient, registry: Registry) -> None:
    registry.add_model(PATH, b"first", license="L")
    await pull(client, registry, PATH)


def _files(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}


async def test_a_name_that_is_no_host(client: RegistryClient) -> None:
    with pytest.raises(RegistryError, match=r"^pull model manifest: a:b:c is no registry's host"):
        async for _ in client.pull(ModelName.parse("a:b:c/library/x")):
            pass
