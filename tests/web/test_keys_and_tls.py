"""Who may call, over what: API keys on every route, TLS, and a certificate that is renewed."""

from __future__ import annotations

import contextlib
import http.client
import signal
import ssl
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import trustme
from lhama_testing_daemon import free_port, running
from lhama_testing_http import create_reference, serving

from lhama.backends.reference import model
from lhama.daemon import tls
from lhama.daemon.apikeys import ApiKeys
from lhama.daemon.config import BadSetting, Settings

KEYS = ApiKeys.parse("alice=secret-of-alice")
ALICE = {"Authorization": "Bearer secret-of-alice"}


# ------------------------------------------------------------------------------------------- keys


@pytest.mark.cve("2025-63389")
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/version"),
        ("POST", "/api/chat"),
        ("DELETE", "/api/delete"),
        ("GET", "/no/such/route"),
        ("GET", "/v1/models"),
        ("POST", "/v1/messages"),
    ],
)
async def test_no_key_no_answer(tmp_path: Path, method: str, path: str) -> None:
    async with serving(tmp_path / "models", api_keys=KEYS) as server:
        for headers in ({}, {"Authorization": "Bearer secret-of-bob"}, {"X-Api-Key": "x"}):
            reply = await server.send(method, path, headers=headers)
            assert (reply.status, reply.header("www-authenticate")) == (401, "Bearer")
            body = reply.json()
            if path == "/v1/messages":
                assert body["error"]["type"] == "authentication_error"
            elif path.startswith("/v1/"):
                assert body["error"]["code"] == "invalid_api_key"
            else:
                assert body == {"error": "unauthorized: a valid API key is required"}
        for headers in (
            {"Authorization": "Bearer secret-of-alice"},
            {"x-api-key": "secret-of-alice"},
        ):
            assert (await server.send(method, path, headers=headers)).status != 401


async def test_metrics_count_by_key(tmp_path: Path) -> None:
    async with serving(tmp_path / "models", api_keys=KEYS) as server:
        await create_reference(server, tmp_path, "ref", headers=ALICE)
        body = {"model": "ref", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 3}
        for stream in (False, True):
            await server.send("POST", "/v1/messages", {**body, "stream": stream}, ALICE)
        await server.send("POST", "/v1/messages", body, {"X-Api-Key": "wrong-key"})
        await server.send("GET", "/v1/models/ref", headers=ALICE)
        page = (await server.send("GET", "/metrics", headers=ALICE)).body.decode()
    counted = dict(line.rsplit(" ", 1) for line in page.splitlines() if line[0] != "#")
    requests = "lhama_http_requests_total"
    assert counted[f'{requests}{{key="alice",route="/v1/messages",status="200"}}'] == "2.0"
    assert counted[f'{requests}{{key="",route="/v1/messages",status="401"}}'] == "1.0"
    assert counted[f'{requests}{{key="alice",route="/v1/models/:model",status="200"}}'] == "1.0"
    assert counted['lhama_used_tokens_total{key="alice",kind="answer"}'] == "6.0"
    assert "secret" not in page


async def test_the_greeting_and_preflights_need_no_key(tmp_path: Path) -> None:
    async with serving(tmp_path / "models", api_keys=KEYS) as server:
        assert (await server.send("HEAD", "/")).status == 200
        assert (await server.send("GET", "/")).body == b"Ollama is running"
        origin = {"Origin": "http://localhost:3000", "Access-Control-Request-Method": "POST"}
        assert (await server.send("OPTIONS", "/api/chat", headers=origin)).status == 204


@pytest.mark.cve("2025-63389")
def test_an_address_for_everybody_is_warned_about(tmp_path: Path) -> None:
    with running(tmp_path / "models", OLLAMA_HOST=f"0.0.0.0:{free_port()}") as daemon:
        assert "EVERYONE" in daemon.log.read_text()


def test_the_log_names_the_key_and_does_not_show_it(tmp_path: Path) -> None:
    environment = {
        "OLLAMA_HOST": f"0.0.0.0:{free_port()}",
        "LHAMA_API_KEYS": "alice=secret-of-alice",
    }
    with running(tmp_path / "models", **environment) as daemon:
        for key in ("secret-of-alice", "secret-of-bob"):
            request = urllib.request.Request(f"{daemon.url}/api/tags")
            request.add_header("Authorization", f"Bearer {key}")
            with contextlib.suppress(urllib.error.HTTPError):
                urllib.request.urlopen(request, timeout=30).close()
        log = daemon.log.read_text()
    answered, refused = [line for line in log.splitlines() if "/api/tags" in line]
    assert "key=alice" in answered
    assert "status=401" in refused
    assert "secret" not in log
    assert "EVERYONE" not in log
    assert "unencrypted" in log


# -------------------------------------------------------------------------------------------- TLS


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def _issue(authority: trustme.CA, folder: Path, name: str) -> dict[str, str]:
    """A certificate for this machine in two files, and the settings that name them."""
    issued = authority.issue_cert("127.0.0.1", common_name=name)
    certificate, key = folder / "cert.pem", folder / "key.pem"
    key.write_bytes(issued.private_key_pem.bytes())
    certificate.write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))
    return {"LHAMA_TLS_CERT": str(certificate), "LHAMA_TLS_KEY": str(key)}


def _serial(port: int, trusted: ssl.SSLContext) -> str:
    """The serial number of the certificate that a new connection is shown; it works, too."""
    connection = http.client.HTTPSConnection("127.0.0.1", port, context=trusted)
    with contextlib.closing(connection):
        connection.request("GET", "/api/version")
        shown = connection.sock.getpeercert()
        assert connection.getresponse().status == 200
    return str(shown["serialNumber"])


def test_https_with_a_certificate_that_is_renewed(authority: trustme.CA, tmp_path: Path) -> None:
    environment = _issue(authority, tmp_path, "first")
    trusted = ssl.create_default_context()
    authority.configure_trust(trusted)
    with running(tmp_path / "models", scheme="https", trusted=trusted, **environment) as daemon:
        model.write(tmp_path / "ref.gguf")
        daemon.create("ref", tmp_path / "ref.gguf")
        body = {"model": "ref", "prompt": "hi", "options": {"num_predict": 4}}
        assert [line["done"] for line in daemon.lines("/api/generate", body)] == [False] * 4 + [
            True
        ]
        first = _serial(daemon.port, trusted)
        with pytest.raises((urllib.error.URLError, ConnectionError)):
            urllib.request.urlopen(f"http://127.0.0.1:{daemon.port}/api/version", timeout=5)
        _issue(authority, tmp_path, "second")
        daemon.process.send_signal(signal.SIGHUP)
        deadline = time.monotonic() + 30
        while (second := _serial(daemon.port, trusted)) == first and time.monotonic() < deadline:
            time.sleep(0.05)
        assert second != first
        (tmp_path / "key.pem").write_text("no key")
        daemon.process.send_signal(signal.SIGHUP)
        while "not renewed" not in daemon.log.read_text() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert _serial(daemon.port, trusted) == second


def test_certificates_that_cannot_be_used(authority: trustme.CA, tmp_path: Path) -> None:
    paths = {name: Path(path) for name, path in _issue(authority, tmp_path, "x").items()}
    certificate, key = paths["LHAMA_TLS_CERT"], paths["LHAMA_TLS_KEY"]
    assert tls.context(Settings()) is None
    assert tls.context(Settings(tls_cert=certificate, tls_key=key)) is not None
    with pytest.raises(BadSetting, match="both, or neither"):
        Settings.from_environment({"LHAMA_TLS_KEY": str(key)})
    with pytest.raises(BadSetting, match=r"LHAMA_TLS_CERT: .*gone\.pem cannot be read: No such"):
        tls.context(Settings(tls_cert=tmp_path / "gone.pem", tls_key=key))
    with pytest.raises(BadSetting, match="no certificate in PEM and the key"):
        tls.context(Settings(tls_cert=certificate))
    key.write_bytes(authority.issue_cert("127.0.0.1").private_key_pem.bytes())
    with pytest.raises(BadSetting, match="no certificate in PEM and the key"):
        tls.context(Settings(tls_cert=certificate, tls_key=key))
