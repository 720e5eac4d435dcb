"""``hf.co/user/repo:quant`` and TLS: a registry with two names, a CDN elsewhere, and HF_TOKEN."""

from __future__ import annotations

import dataclasses
import ssl
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
from aiohttp import web
from lhama_testing_pulls import QUICK, walk, weights
from lhama_testing_registry import Registry, serving
from lhama_testing_worker import worker

from lhama.daemon.config import Settings
from lhama.daemon.errors import RegistryError
from lhama.daemon.protocol.replies import Progress
from lhama.daemon.protocol.types import CreateRequest
from lhama.daemon.registry import RegistryClient
from lhama.daemon.store import ModelName, Store, create
from lhama.plugins import gguf

trustme = pytest.importorskip("trustme", reason="trustme is not installed: pip install '.[dev]'")

REPOSITORY = "user/Tiny-GGUF"
SECRET = "hf_secret"


async def here(host: str) -> Sequence[str]:
    """Every name is this machine."""
    return ["127.0.0.1"]


@pytest.fixture(scope="module")
def tls() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Of a server with Hugging Face's names, and of a client that trusts its authority."""
    authority = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    names = ("hf.co", "huggingface.co", "cdn.hf.test")
    authority.issue_cert(*names).configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    return server, client


@pytest.fixture
async def hub(tls: tuple[ssl.SSLContext, ssl.SSLContext]) -> AsyncIterator[Registry]:
    async with serving(host="hf.co", elsewhere="cdn.hf.test", tls=tls[0]) as registry:
        registry.add_model(f"{REPOSITORY}:Q4_K_M", weights(300_000), template="{{ .Prompt }}")
        registry.redirect_status = 302
        yield registry


class Hugger:
    """Pulls from the hub under either of its names."""

    def __init__(self, settings: Settings, store: Store, tls: ssl.SSLContext | None) -> None:
        self.client = RegistryClient(settings, store, manner=QUICK, lookup=here, tls=tls)

    async def pull(
        self, registry: Registry, host: str = "hf.co", *, insecure: bool = False
    ) -> list[Progress]:
        port = registry.host.rpartition(":")[2]
        name = ModelName.parse(f"{host}:{port}/{REPOSITORY}:Q4_K_M")
        return [line async for line in self.client.pull(name, insecure=insecure)]


@pytest.fixture
def hugger(settings: Settings, store: Store, tls: tuple[ssl.SSLContext, ssl.SSLContext]) -> Hugger:
    return Hugger(settings, store, tls[1])


@pytest.fixture
def known(settings: Settings, store: Store, tls: tuple[ssl.SSLContext, ssl.SSLContext]) -> Hugger:
    """With HF_TOKEN set."""
    return Hugger(dataclasses.replace(settings, hf_token=SECRET), store, tls[1])


@pytest.mark.parametrize("host", ["hf.co", "huggingface.co"])
async def test_a_public_repository(hugger: Hugger, hub: Registry, store: Store, host: str) -> None:
    lines = await hugger.pull(hub, host)
    assert lines[-1].status == "success"
    port = hub.host.rpartition(":")[2]
    assert list(walk(store.root)) == [f"{host}:{port}/{REPOSITORY}/Q4_K_M"]
    assert {seen.at for seen in hub.seen} == {"registry", "elsewhere"}
    assert not any("Authorization" in seen.headers for seen in hub.seen)
    # By this word Hugging Face knows whom it talks to, and sends Ollama's manifests.
    assert all(seen.headers["User-Agent"].startswith("ollama/0.") for seen in hub.seen)


async def test_the_token_goes_to_hugging_face_only(
    known: Hugger, hub: Registry, store: Store
) -> None:
    hub.token = SECRET
    await known.pull(hub)
    assert walk(store.root)
    for seen in hub.seen:
        assert (seen.headers.get("Authorization") == f"Bearer {SECRET}") == (seen.at == "registry")
    assert not hub.requests("GET", "/token")


async def test_the_short_name_may_lead_to_the_long_one(
    known: Hugger, hub: Registry, store: Store
) -> None:
    hub.token = SECRET
    port = hub.host.rpartition(":")[2]
    path = f"/v2/{REPOSITORY}/manifests/Q4_K_M"
    hub.redirects[path] = f"https://huggingface.co:{port}{path}"
    await known.pull(hub)
    assert walk(store.root)
    assert [seen.headers["Host"] for seen in hub.requests("GET", "manifests")] == [
        f"hf.co:{port}",
        f"huggingface.co:{port}",
    ]


async def test_without_tls_nothing_is_sent(settings: Settings, store: Store) -> None:
    async with serving(host="hf.co", elsewhere="cdn.hf.test") as plain:
        plain.add_model(f"{REPOSITORY}:Q4_K_M", b"w")
        settings = dataclasses.replace(settings, hf_token=SECRET)
        await Hugger(settings, store, None).pull(plain, insecure=True)
        assert not any("Authorization" in seen.headers for seen in plain.seen)


async def test_other_registries_never_see_it(
    settings: Settings, store: Store, registry: Registry
) -> None:
    registry.add_model("user/repo", b"w")
    client = RegistryClient(dataclasses.replace(settings, hf_token=SECRET), store)
    name = ModelName.parse(f"{registry.host}/user/repo")
    async for _ in client.pull(name, insecure=True):
        pass
    assert not any("Authorization" in seen.headers for seen in registry.seen)
    assert SECRET not in repr(dataclasses.replace(settings, hf_token=SECRET))


async def test_either_name_may_hand_out_the_others_token(
    hugger: Hugger, hub: Registry, store: Store
) -> None:
    async def give(request: web.Request) -> web.Response:
        return web.json_response({"token": "t"})

    hub.token, hub.on_token = "t", give
    hub.realm = f"https://huggingface.co:{hub.host.rpartition(':')[2]}/token"
    await hugger.pull(hub)
    assert walk(store.root)


async def test_a_gated_model_says_what_to_do(hugger: Hugger, hub: Registry) -> None:
    hub.token, hub.realm = "another", ""
    with pytest.raises(RegistryError, match=r"unauthorized: access denied \(.*HF_TOKEN set\)$"):
        await hugger.pull(hub)


async def test_create_pulls_what_it_is_made_from(
    known: Hugger, hub: Registry, store: Store, tmp_path: Path
) -> None:
    path = tmp_path / "x.gguf"
    gguf.write(path, {"general.architecture": "test"}, {"t": ((1,), "F32", bytes(4))})
    hub.add_model(f"{REPOSITORY}:Q4_K_M", path.read_bytes())
    request = CreateRequest(model="mine", from_=f"{hub.host}/{REPOSITORY}:Q4_K_M", system="S")
    lines = [
        line.status async for line in create.create(store, request, known.client.pull, worker())
    ]
    assert lines[0] == "pulling manifest"
    # Both ends are in the stream, as with Ollama.
    assert lines.count("success") == 2
    assert lines[-2:] == ["writing manifest", "success"]
    assert store.get("mine").system == "S"
    assert len(walk(store.root)) == 2


async def test_an_unknown_authority(settings: Settings, store: Store, hub: Registry) -> None:
    with pytest.raises(RegistryError) as refused:
        await Hugger(settings, store, None).pull(hub)
    assert refused.value.message.endswith(
        '/manifests/Q4_K_M": tls: failed to verify certificate: '
        "x509: certificate signed by unknown authority"
    )


async def test_a_registry_without_tls(settings: Settings, store: Store, tmp_path: Path) -> None:
    async with serving() as plain:
        client = RegistryClient(settings, store)
        with pytest.raises(RegistryError) as refused:
            async for _ in client.pull(ModelName.parse(f"{plain.host}/a/b")):
                pass
        assert refused.value.message == (
            f'pull model manifest: Get "https://{plain.host}/v2/a/b/manifests/latest": '
            "http: server gave HTTP response to HTTPS client"
        )
