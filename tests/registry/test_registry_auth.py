"""Signing in, and that nobody but the registry ever sees a token."""

from __future__ import annotations

import base64
import hashlib
import stat
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import parse_qsl

import pytest
from aiohttp import web
from lhama_testing_pulls import pull, walk
from lhama_testing_registry import Registry, serving
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from lhama.daemon.errors import RegistryError
from lhama.daemon.registry import RegistryClient
from lhama.daemon.registry.auth import Challenge, read_token, same_registry
from lhama.daemon.registry.identity import Identity
from lhama.daemon.store import Store

PATH = "library/tiny"
EMPTY = base64.b64encode(hashlib.sha256(b"").hexdigest().encode()).decode()


def challenge(*values: str) -> Challenge:
    headers = CIMultiDict([("www-authenticate", value) for value in values])
    return Challenge.read(CIMultiDictProxy(headers))


def test_the_challenge_is_read() -> None:
    read = challenge('Bearer realm="https://r/t",service="r",scope="repository:a/b:pull,push x"')
    assert read == Challenge("https://r/t", "r", "repository:a/b:pull,push x")
    assert challenge("Negotiate", 'bearer realm="x"') == Challenge("x", "", "")
    assert challenge('Basic realm="x"') == challenge() == Challenge("", "", "")


def test_the_tokens_url_names_what_it_is_for() -> None:
    asked = URL("https://r.test/v2/a/b")
    read = Challenge("https://r.test/t?account=me", "svc", "repository:a/b:pull,push other")
    url = read.url(asked)
    query = parse_qsl(url.raw_query_string)
    assert [pair for pair in query if pair[0] not in ("ts", "nonce")] == [
        ("account", "me"),
        ("scope", "other"),
        ("scope", "repository:a/b:pull,push"),
        ("service", "svc"),
    ]
    (nonce,) = (value for key, value in query if key == "nonce")
    assert len(base64.urlsafe_b64decode(nonce + "==")) == 16
    assert read.url(asked) != url, "every request has a nonce of its own"


@pytest.mark.parametrize(
    ("realm", "words"),
    [
        ("https://evil.test/t", 'realm host "evil.test" does not match original host "r.test:8"'),
        ("https://r.test/t", 'realm host "r.test" does not match original host "r.test:8"'),
        ("https://r.test:9/t", 'realm host "r.test:9" does not match original host "r.test:8"'),
        ("http://r.test:8/t", 'realm scheme "http" does not match original scheme "https"'),
        ("https://r.test:8@evil.test/t", 'realm host "r.test:8@evil.test" does not match orig'),
        ("https://r.test.evil.test:8/t", 'realm host "r.test.evil.test:8" does not match orig'),
        ("/t", 'realm host "" does not match original host "r.test:8"'),
        ("https://r.test:x/t", "the registry's realm is no URL"),
    ],
)
def test_a_realm_elsewhere_is_refused(realm: str, words: str) -> None:
    with pytest.raises(RegistryError) as refused:
        Challenge(realm, "", "").url(URL("https://r.test:8/v2/a/b"))
    assert refused.value.message.startswith(words)


@pytest.mark.parametrize(
    ("url", "registry", "same"),
    [
        ("https://hf.co/x", "https://huggingface.co/y", True),
        ("https://HF.co:443/x", "https://hf.co/y", True),
        ("http://hf.co/x", "http://huggingface.co/y", False),
        ("https://evilhf.co/x", "https://hf.co/y", False),
        ("https://cdn-lfs.hf.co/x", "https://hf.co/y", False),
    ],
)
def test_hugging_face_is_one_registry_with_two_names(url: str, registry: str, same: bool) -> None:
    assert same_registry(URL(url), URL(registry)) is same


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"token":5}', b'{"token":"a\\r\\nX: y"}'])
def test_a_token_that_is_none(body: bytes) -> None:
    with pytest.raises(RegistryError):
        read_token(body)


class TestKey:
    def test_it_is_made_once_and_private(self, tmp_path: Path) -> None:
        path = tmp_path / ".ollama" / "id_ed25519"
        first = Identity(path).sign(b"x")
        assert Identity(path).sign(b"x") == first
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert path.read_bytes().startswith(b"-----BEGIN OPENSSH PRIVATE KEY-----")
        assert path.with_suffix(".pub").read_text().split()[1] == first.split(":")[0]

    def test_a_key_that_is_none(self, tmp_path: Path) -> None:
        path = tmp_path / "id"
        path.write_bytes(b"no key")
        with pytest.raises(RegistryError, match="cannot be read"):
            Identity(path).sign(b"x")

    def test_many_first_uses_make_one_key(self, tmp_path: Path) -> None:
        path = tmp_path / ".ollama" / "id_ed25519"
        with ThreadPoolExecutor(8) as pool:
            signatures = set(pool.map(lambda _: Identity(path).sign(b"x"), range(16)))
        assert len(signatures) == 1
        assert sorted(p.name for p in path.parent.iterdir()) == ["id_ed25519", "id_ed25519.pub"]


@pytest.fixture
def no_cryptography(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the extra ``push`` is not installed."""
    for name in [name for name in sys.modules if name.startswith("cryptography")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "cryptography", None)


def _verify(request: web.Request) -> None:
    """Check the signature as ollama.com would: over the URL that was asked."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_ssh_public_key

    public, signature = request.headers["Authorization"].split(":")
    key = load_ssh_public_key(b"ssh-ed25519 " + public.encode())
    assert isinstance(key, Ed25519PublicKey)
    signed = f"GET,{request.scheme}://{request.host}{request.raw_path},{EMPTY}"
    key.verify(base64.b64decode(signature), signed.encode())


@pytest.fixture
def guarded(registry: Registry) -> Registry:
    """A registry that wants a token, and gives one for a good signature."""

    async def give(request: web.Request) -> web.Response:
        _verify(request)
        return web.json_response({"token": registry.token})

    registry.add_model(PATH, b"weights" * 30_000)
    registry.token = "the-token"
    registry.on_token = give
    return registry


async def test_a_token_is_earned_once_and_sent_to_nobody_else(
    client: RegistryClient, guarded: Registry, store: Store
) -> None:
    await pull(client, guarded, PATH)
    assert walk(store.root)
    assert len(guarded.requests("GET", "/token")) == 1
    elsewhere = [seen for seen in guarded.seen if seen.at == "elsewhere"]
    assert elsewhere
    assert not any("Authorization" in seen.headers for seen in elsewhere)


async def test_without_cryptography_a_strangers_token_will_do(
    no_cryptography: None, client: RegistryClient, guarded: Registry, store: Store
) -> None:
    async def give(request: web.Request) -> web.Response:
        assert "Authorization" not in request.headers
        return web.json_response({"access_token": guarded.token})

    guarded.on_token = give
    await pull(client, guarded, PATH)
    assert walk(store.root)


async def test_without_cryptography_it_says_what_to_install(
    no_cryptography: None, client: RegistryClient, guarded: Registry
) -> None:
    async def refuse(request: web.Request) -> web.Response:
        return web.Response(status=401, text="sign in")

    guarded.on_token = refuse
    with pytest.raises(RegistryError, match=r"401: sign in \(.*pip install 'lhama\[push\]'\)$"):
        await pull(client, guarded, PATH)


async def test_a_token_that_is_not_taken(client: RegistryClient, guarded: Registry) -> None:
    async def give(request: web.Request) -> web.Response:
        return web.json_response({"token": "another"})

    guarded.on_token = give
    with pytest.raises(RegistryError, match=r"^pull model manifest: unauthorized: access denied$"):
        await pull(client, guarded, PATH)
    assert len(guarded.requests("GET", "manifests")) == 2


@pytest.mark.cve("2025-51471")
@pytest.mark.parametrize("where", ["127.0.0.1", "localhost"])
async def test_the_realm_of_another_host_gets_nothing(
    client: RegistryClient, guarded: Registry, where: str
) -> None:
    async with serving(host=where) as evil:
        evil.on_token = guarded.on_token
        guarded.realm = f"http://{evil.host}/token"
        with pytest.raises(RegistryError, match=f'realm host "{evil.host}" does not match origi'):
            await pull(client, guarded, PATH)
        assert evil.seen == []


@pytest.mark.cve("2025-51471")
async def test_a_realm_that_redirects_gets_nothing_further(
    client: RegistryClient, guarded: Registry
) -> None:
    async with serving() as evil:

        async def redirect(request: web.Request) -> web.Response:
            return web.Response(status=307, headers={"Location": f"http://{evil.host}/token"})

        guarded.on_token = redirect
        with pytest.raises(RegistryError, match="redirects from its realm"):
            await pull(client, guarded, PATH)
        assert evil.seen == []


async def test_a_manifest_elsewhere_is_asked_for_without_the_token(
    client: RegistryClient, guarded: Registry, store: Store
) -> None:
    await pull(client, guarded, PATH)
    async with serving() as other:
        other.manifests = guarded.manifests
        guarded.redirects[f"/v2/{PATH}/manifests/latest"] = (
            f"http://{other.host}/v2/{PATH}/manifests/latest"
        )
        await pull(client, guarded, PATH)
        (seen,) = other.seen
        assert "Authorization" not in seen.headers


async def test_a_refused_token_is_told(client: RegistryClient, guarded: Registry) -> None:
    async def refuse(request: web.Request) -> web.Response:
        return web.Response(status=403, text="who are you?")

    guarded.on_token = refuse
    with pytest.raises(RegistryError, match=r"^pull model manifest: 403: who are you\?$"):
        await pull(client, guarded, PATH)
