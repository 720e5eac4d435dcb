"""Where redirects may lead (SSRF), as rules and against servers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import pytest
from lhama_testing_pulls import pull, walk
from lhama_testing_registry import Registry, serving
from yarl import URL

from lhama.daemon.errors import RegistryError
from lhama.daemon.registry import RegistryClient, reach
from lhama.daemon.registry.reach import NoSuchHost, Reach, Zone, zone
from lhama.daemon.store import Store

PATH = "library/tiny"


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("8.8.8.8", Zone.PUBLIC),
        ("2606:4700::1111", Zone.PUBLIC),
        ("10.1.2.3", Zone.PRIVATE),
        ("172.16.0.1", Zone.PRIVATE),
        ("192.168.1.1", Zone.PRIVATE),
        ("100.64.0.1", Zone.PRIVATE),
        ("fd00:ec2::254", Zone.PRIVATE),
        ("127.0.0.1", Zone.LOOPBACK),
        ("127.255.0.9", Zone.LOOPBACK),
        ("0.0.0.0", Zone.LOOPBACK),
        ("::", Zone.LOOPBACK),
        ("::1", Zone.LOOPBACK),
        ("::ffff:127.0.0.1", Zone.LOOPBACK),
        ("::ffff:10.0.0.1", Zone.PRIVATE),
        ("169.254.169.254", Zone.NOWHERE),
        ("fe80::1%eth0", Zone.NOWHERE),
        ("224.0.0.1", Zone.NOWHERE),
    ],
)
def test_zones(address: str, expected: Zone) -> None:
    assert zone(address) is expected


def reaching(hosts: dict[str, Sequence[str]]) -> Reach:
    async def lookup(host: str) -> Sequence[str]:
        if host not in hosts:
            raise OSError
        return hosts[host]

    return Reach(lookup)


@pytest.mark.cve("2026-5530")
@pytest.mark.parametrize(
    ("registry", "target", "allowed"),
    [
        (["8.8.8.8"], ["8.8.4.4"], ["8.8.4.4"]),
        (["8.8.8.8"], ["10.0.0.1"], []),
        (["8.8.8.8"], ["127.0.0.1"], []),
        (["8.8.8.8"], ["::ffff:127.0.0.1"], []),
        (["8.8.8.8"], ["127.0.0.1", "8.8.4.4"], ["8.8.4.4"]),
        (["10.0.0.1"], ["10.0.0.2", "8.8.8.8"], ["10.0.0.2", "8.8.8.8"]),
        (["10.0.0.1"], ["127.0.0.1"], []),
        (["127.0.0.1"], ["127.0.0.1", "10.0.0.1"], ["127.0.0.1", "10.0.0.1"]),
        (["127.0.0.1"], ["169.254.169.254"], []),
        # An outside address makes the registry an outsider, whatever is beside it.
        (["8.8.8.8", "127.0.0.1"], ["127.0.0.1"], []),
    ],
)
async def test_a_redirect_never_leads_further_inside(
    registry: list[str], target: list[str], allowed: list[str]
) -> None:
    reach = reaching({"registry.test": registry, "target.test": target})
    await reach.admit(URL("http://registry.test/v2"))
    if allowed:
        await reach.admit(URL("http://Target.test:81/x"))
    else:
        with pytest.raises(RegistryError, match=r"^(refused to follow|no registry can be at)"):
            await reach.admit(URL("http://target.test:81/x"))
    assert [found["host"] for found in await reach.resolve("target.test", 81)] == allowed


@pytest.mark.parametrize("host", ["127.0.0.1", "10.0.0.1", "[::1]", "169.254.169.254"])
@pytest.mark.parametrize("proxied", [False, True])
async def test_literal_addresses_are_checked_too(host: str, proxied: bool) -> None:
    reach = reaching({"registry.test": ["8.8.8.8"]})
    await reach.admit(URL("http://registry.test/"), proxied=proxied)
    with pytest.raises(RegistryError):
        await reach.admit(URL(f"http://{host}/"), proxied=proxied)


@pytest.mark.cve("2026-5530")
async def test_a_name_cannot_change_its_mind() -> None:
    """DNS rebinding: the addresses that were checked are those that are used."""
    hosts = {"registry.test": ["8.8.8.8"]}
    reach = reaching(hosts)
    await reach.admit(URL("http://registry.test/"))
    hosts["registry.test"] = ["127.0.0.1"]
    await reach.admit(URL("http://registry.test/again"))
    assert [found["host"] for found in await reach.resolve("registry.test")] == ["8.8.8.8"]
    reach.forget(URL("http://registry.test/"))
    with pytest.raises(RegistryError):
        await reach.admit(URL("http://registry.test/"))


async def test_a_link_local_address_is_no_registry_at_all() -> None:
    with pytest.raises(RegistryError, match="link-local"):
        await reaching({}).admit(URL("http://169.254.169.254/"))


async def test_a_name_without_an_address() -> None:
    with pytest.raises(NoSuchHost, match=r"^lookup nowhere.test: no such host$"):
        await reaching({}).admit(URL("http://nowhere.test/"))


async def test_hosts_that_were_not_admitted_have_no_address() -> None:
    assert await reaching({"a.test": ["8.8.8.8"]}).resolve("a.test") == []


class TestServers:
    """127.0.0.2 plays the internet, 127.0.0.3 the network we are in."""

    @pytest.fixture(autouse=True)
    def zones(self, monkeypatch: pytest.MonkeyPatch) -> None:
        played = {"127.0.0.2": Zone.PUBLIC, "127.0.0.3": Zone.PRIVATE}
        monkeypatch.setattr(reach, "zone", lambda a: played[a] if a in played else zone(a))

    @pytest.fixture
    async def outside(self) -> AsyncIterator[Registry]:
        async with serving(host="127.0.0.2", elsewhere="127.0.0.2") as registry:
            registry.add_model(PATH, b"weights")
            yield registry

    async def test_outside_to_outside(
        self, client: RegistryClient, outside: Registry, store: Store
    ) -> None:
        await pull(client, outside, PATH)
        assert walk(store.root)

    @pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.3", "localhost", "169.254.169.254"])
    async def test_blobs_inside(
        self, client: RegistryClient, outside: Registry, store: Store, host: str
    ) -> None:
        async with serving(host="127.0.0.1", elsewhere="127.0.0.3") as inside:
            port = {"127.0.0.3": inside.elsewhere.rpartition(":")[2]}.get(
                host, inside.host.rpartition(":")[2]
            )
            outside.elsewhere = f"http://{host}:{port}"
            with pytest.raises(RegistryError, match=r"refused to follow|no registry can be at"):
                await pull(client, outside, PATH)
            assert inside.seen == []
        assert store.list() == []

    async def test_a_manifest_inside(self, client: RegistryClient, outside: Registry) -> None:
        async with serving(host="127.0.0.1") as inside:
            outside.redirects[f"/v2/{PATH}/manifests/latest"] = f"http://{inside.host}/secret"
            with pytest.raises(RegistryError, match="refused to follow the registry to this mac"):
                await pull(client, outside, PATH)
            assert inside.seen == []

    async def test_inside_may_lead_outside(
        self, client: RegistryClient, outside: Registry, store: Store
    ) -> None:
        async with serving(host="127.0.0.3") as inside:
            inside.add_model(PATH, b"weights")
            inside.elsewhere = outside.elsewhere
            await pull(client, inside, PATH)
        assert walk(store.root)


async def test_redirects_end(client: RegistryClient, registry: Registry) -> None:
    path = f"/v2/{PATH}/manifests/latest"
    registry.redirects[path] = path
    with pytest.raises(RegistryError, match=r'^pull model manifest: Get "http.*: stopped after 10'):
        await pull(client, registry, PATH)
    assert len(registry.seen) == 11


@pytest.mark.parametrize(
    "location",
    [
        "file:///etc/passwd",
        "ftp://localhost/x",
        "http://u:p@localhost/",
        "http://h:x/",
        "http://[/",
    ],
)
async def test_a_location_that_cannot_be(
    client: RegistryClient, registry: Registry, location: str
) -> None:
    registry.redirects[f"/v2/{PATH}/manifests/latest"] = location
    with pytest.raises(RegistryError, match="redirects to a URL that cannot be"):
        await pull(client, registry, PATH)
