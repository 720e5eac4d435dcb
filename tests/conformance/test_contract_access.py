"""Who may call from a browser, and under which name (§4, CORS and Host)."""

from __future__ import annotations

from pathlib import Path

import pytest
from lhama_testing_http import Reply, Server, serving

from lhama.daemon.config import BadSetting, Settings

HEADERS = (
    "Authorization,Content-Type,User-Agent,Accept,X-Requested-With,Openai-Beta,X-Stainless-Arch,"
    "X-Stainless-Async,X-Stainless-Custom-Poll-Interval,X-Stainless-Helper-Method,"
    "X-Stainless-Lang,X-Stainless-Os,X-Stainless-Package-Version,X-Stainless-Poll-Helper,"
    "X-Stainless-Retry-Count,X-Stainless-Runtime,X-Stainless-Runtime-Version,X-Stainless-Timeout"
)
ASKED = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "x-own"}


def cors(reply: Reply) -> dict[str, str]:
    found = {k.lower(): v for k, v in reply.headers if k.lower().startswith("access-control-")}
    return {name.removeprefix("access-control-"): value for name, value in found.items()}


@pytest.mark.parametrize(
    "origin",
    [
        *("http://localhost", "https://localhost", "http://localhost:3000", "https://127.0.0.1:1"),
        *("http://0.0.0.0:5", "app://obsidian.md", "file://", "tauri://localhost"),
        *("vscode-webview://abc", "vscode-file://x"),
    ],
)
async def test_allowed_origins(server: Server, origin: str) -> None:
    reply = await server.ask("GET /api/version", Origin=origin)
    assert (reply.status, cors(reply)) == (200, {"allow-origin": origin})
    assert reply.header("vary") == "Origin"
    reply = await server.ask("OPTIONS /api/chat", Origin=origin, **ASKED)
    assert (reply.status, reply.body) == (204, b"")
    assert cors(reply) == {
        "allow-origin": origin,
        "allow-methods": "GET,POST,PUT,PATCH,DELETE,HEAD,OPTIONS",
        "allow-headers": HEADERS,
        "max-age": "43200",
    }
    vary = [value for name, value in reply.headers if name.lower() == "vary"]
    assert vary == ["Origin", "Access-Control-Request-Method", "Access-Control-Request-Headers"]
    assert reply.header("allow") == "POST"


@pytest.mark.parametrize(
    "origin",
    [
        *("http://evil.example.com", "https://localhost.evil.com", "http://localhostevil.com"),
        *("null", "chrome-extension://abc", "moz-extension://abc", "safari-extension://x"),
        *("HTTP://LOCALHOST", "ftp://localhost"),
    ],
)
async def test_refused_origins(server: Server, origin: str) -> None:
    for route in ("GET /api/version", "POST /api/show", "GET /nope", "OPTIONS /api/chat"):
        reply = await server.ask(route, Origin=origin)
        assert (reply.status, reply.body, cors(reply)) == (403, b"", {})
        assert reply.header("content-type") is None


async def test_the_servers_own_origin_is_none(server: Server) -> None:
    for scheme in ("http", "https"):
        origin = f"{scheme}://{server.settings.address}"
        reply = await server.ask("GET /api/version", Origin=origin)
        assert (reply.status, cors(reply), reply.header("vary")) == (200, {}, None)
        assert (await server.ask("OPTIONS /api/chat", Origin=origin)).status == 405
    # It is the name that was called which counts, not the address.
    reply = await server.ask("GET /api/version", Origin="http://box.local", Host="box.local")
    assert (reply.status, cors(reply)) == (200, {})


async def test_preflights_of_unknown_routes(server: Server) -> None:
    reply = await server.ask("OPTIONS /nope", Origin="http://localhost", **ASKED)
    assert (reply.status, reply.header("allow")) == (204, None)
    reply = await server.ask("POST /nope", Origin="http://localhost")
    assert (reply.status, cors(reply)) == (404, {"allow-origin": "http://localhost"})


async def test_errors_keep_the_origin(server: Server) -> None:
    for body, status in ((b"", 400), (b'{"model":"nope"}', 404)):
        reply = await server.ask("POST /api/show", body, Origin="http://localhost:1")
        assert (reply.status, cors(reply)) == (status, {"allow-origin": "http://localhost:1"})


@pytest.mark.parametrize(
    ("setting", "origin", "allowed"),
    [
        ("http://my.site", "http://my.site", True),
        ("http://my.site", "https://my.site", False),
        ("http://my.site", "http://my.site:80", False),
        ("HTTP://My.Site", "http://my.site", True),
        ("https://*.my.site", "https://a.b.my.site", True),
        ("https://*.my.site", "https://my.site", False),
        ("chrome-extension://*", "chrome-extension://abc", True),
        ("http://a, http://b", "http://b", True),
        ("http://a", "http://localhost:9", True),
    ],
)
async def test_origins_of_the_environment(
    tmp_path: Path, setting: str, origin: str, allowed: bool
) -> None:
    origins = Settings.from_environment({"OLLAMA_ORIGINS": setting}).origins
    async with serving(tmp_path / "models", origins=origins) as server:
        reply = await server.ask("GET /api/version", Origin=origin)
        assert reply.status == (200 if allowed else 403)


async def test_everybody(tmp_path: Path) -> None:
    origins = Settings.from_environment({"OLLAMA_ORIGINS": "*"}).origins
    async with serving(tmp_path / "models", origins=origins) as server:
        for route in ("GET /api/version", "OPTIONS /api/chat"):
            reply = await server.ask(route, Origin="http://evil.example.com")
            assert cors(reply)["allow-origin"] == "*"
            assert reply.header("vary") is None


@pytest.mark.parametrize("setting", ["my.site", "foo://bar", "http://*.a.*", "http://"])
def test_origins_that_abort_the_start(setting: str) -> None:
    with pytest.raises(BadSetting):
        Settings.from_environment({"OLLAMA_ORIGINS": setting})


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        *((name, True) for name in ("", "localhost", "LOCALHOST:1", "a.localhost", "b.local")),
        *((name, True) for name in ("c.internal:80", "127.9.9.9", "10.1.2.3:5", "172.16.0.1")),
        *(
            (name, True)
            for name in ("192.168.1.5", "0.0.0.0", "[::1]:80", "[fd00::1]:80", "[::]:1")
        ),
        *(
            (name, False)
            for name in ("evil.example.com", "localhost.evil.com", "local", "internal")
        ),
        *(
            (name, False)
            for name in ("8.8.8.8", "172.32.0.1", "169.254.169.254", "[2001:db8::1]:1")
        ),
    ],
)
async def test_hosts(server: Server, host: str, allowed: bool) -> None:
    reply = await server.ask("GET /api/version", Host=host)
    assert reply.status == (200 if allowed else 403)
    if not allowed:
        assert (reply.body, reply.header("content-type")) == (b"", None)
        assert (await server.ask("GET /nope", Host=host)).status == 403


@pytest.mark.parametrize(
    "host", ["a b", "user@localhost", "http://localhost", "a/b", 'a"b', "m\u00fcnchen.local"]
)
async def test_what_cannot_be_a_host(server: Server, host: str) -> None:
    for route in ("GET /api/version", "GET /nope", "OPTIONS /api/chat", "GET //api/tags"):
        reply = await server.ask(route, Host=host, Origin="http://evil.example.com")
        assert (reply.status, reply.body) == (400, b"400 Bad Request: malformed Host header")
        assert reply.header("content-type") == "text/plain; charset=utf-8"
        assert reply.header("connection") == "close"
        assert reply.header("access-control-allow-origin") is None


async def test_a_refusal_of_a_wrong_method_names_the_right_ones(server: Server) -> None:
    """Ollama's router knows that the method is wrong before origin and Host are looked at."""
    for headers in ({"Host": "evil"}, {"Origin": "http://evil.example.com"}):
        for route, allow in (("DELETE /api/tags", "HEAD, GET"), ("GET /api/chat", "POST")):
            reply = await server.ask(route, **headers)
            assert (reply.status, reply.header("allow"), reply.body) == (403, allow, b"")
        assert (await server.ask("GET /api/tags", **headers)).header("allow") is None
        assert (await server.ask("DELETE /nope", **headers)).header("allow") is None


async def test_options_by_host(server: Server) -> None:
    for host, status in (("localhost", 204), ("a.local", 204), ("127.0.0.1", 405), ("evil", 403)):
        reply = await server.ask("OPTIONS /api/chat", Host=host)
        assert (reply.status, reply.header("allow")) == (status, "POST")
