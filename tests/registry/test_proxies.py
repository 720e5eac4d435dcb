"""Proxies: when they are used, and that nothing slips past the rules because of one."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Sequence

import pytest
from lhama_testing_registry import Registry
from yarl import URL

from lhama.daemon.config import Settings
from lhama.daemon.errors import RegistryError
from lhama.daemon.registry import RegistryClient
from lhama.daemon.registry.proxies import proxy_for
from lhama.daemon.store import ModelName, Store


@pytest.mark.parametrize(
    ("url", "no_proxy", "used"),
    [
        ("https://registry.ollama.ai/v2", "", True),
        ("https://registry.ollama.ai/v2", "*", False),
        ("https://registry.ollama.ai/v2", "ollama.ai", False),
        ("https://registry.ollama.ai/v2", ".ollama.ai", False),
        ("https://registry.ollama.ai/v2", "*.ollama.ai", False),
        ("https://ollama.ai/v2", ".ollama.ai", True),
        ("https://notollama.ai/v2", "ollama.ai", True),
        ("https://registry.ollama.ai/v2", "a.test, registry.ollama.ai:443", False),
        ("https://registry.ollama.ai/v2", "registry.ollama.ai:80", True),
        ("https://10.1.2.3/v2", "10.0.0.0/8", False),
        ("https://11.1.2.3/v2", "10.0.0.0/8", True),
        ("https://10.1.2.3/v2", "10.1.2.3", False),
        ("https://127.0.0.1:5000/v2", "", False),
        ("https://localhost:5000/v2", "", False),
        ("http://registry.ollama.ai/v2", "", False),
    ],
)
def test_which_requests_go_through_it(url: str, no_proxy: str, used: bool) -> None:
    settings = Settings(https_proxy="proxy.test:3128", no_proxy=no_proxy)
    expected = URL("http://proxy.test:3128") if used else None
    assert proxy_for(URL(url), settings) == expected


def test_the_environment_is_read_in_either_case() -> None:
    environ = {"https_proxy": "a:1", "HTTP_PROXY": "b:2", "no_proxy": "c", "HOME": "/h"}
    settings = Settings.from_environment(environ)
    assert (settings.https_proxy, settings.http_proxy, settings.no_proxy) == ("a:1", "b:2", "c")
    assert str(settings.identity) == "/h/.ollama/id_ed25519"


class Proxy:
    """A proxy for plain HTTP on this machine that sends every request to one port of it."""

    def __init__(self, to: str) -> None:
        self.to = to
        self.asked: list[str] = []
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        method, target, _ = head.split(b" ", 2)
        url = URL(target.decode(), encoded=True)
        self.asked.append(url.host or "")
        host, port = self.to.split(":")
        theirs, ours = await asyncio.open_connection(host, int(port))
        rest = head.split(b"\r\n", 1)[1].replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
        ours.write(b"%s %s HTTP/1.1\r\n%s" % (method, url.raw_path_qs.encode(), rest))
        writer.write(await theirs.read())
        ours.close()
        writer.close()


@pytest.fixture
async def proxy(registry: Registry) -> AsyncIterator[Proxy]:
    proxy = Proxy(registry.host)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    async with server:
        proxy.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        yield proxy


async def no_lookup(host: str) -> Sequence[str]:
    raise OSError(f"{host} is looked up here, not by the proxy")


async def test_a_pull_through_a_proxy(
    settings: Settings, store: Store, registry: Registry, proxy: Proxy
) -> None:
    registry.add_model("user/repo", b"weights")
    registry.elsewhere = "http://cdn.test"
    registry.location = lambda digest: f"http://cdn.test/v2/user/repo/blobs/{digest}"
    through = dataclasses.replace(settings, http_proxy=proxy.url)
    client = RegistryClient(through, store, lookup=no_lookup)
    async for _ in client.pull(ModelName.parse("registry.test/user/repo"), insecure=True):
        pass
    assert len(store.list()) == 1
    assert set(proxy.asked) == {"registry.test", "cdn.test"}


async def test_a_literal_address_inside_is_refused_behind_a_proxy_too(
    settings: Settings, store: Store, registry: Registry, proxy: Proxy
) -> None:
    registry.add_model("user/repo", b"weights")
    registry.location = lambda digest: f"http://10.0.0.1/{digest}"
    through = dataclasses.replace(settings, http_proxy=proxy.url)
    client = RegistryClient(through, store, lookup=no_lookup)
    with pytest.raises(RegistryError, match="refused to follow the registry to a private network"):
        async for _ in client.pull(ModelName.parse("registry.test/user/repo"), insecure=True):
            pass
    assert set(proxy.asked) == {"registry.test"}
