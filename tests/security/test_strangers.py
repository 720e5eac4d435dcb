"""Who gets in: DNS rebinding, foreign pages, a daemon for everybody."""

from __future__ import annotations

from pathlib import Path

import pytest
from lhama_testing_http import Server, serving

from lhama.daemon.apikeys import ApiKeys

ROUTES = ("GET /api/tags", "POST /api/show", "OPTIONS /api/chat", "DELETE /api/delete", "GET /no")


@pytest.mark.cve("2024-28224")
@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", ""])
async def test_a_name_pointed_here_is_refused(tmp_path: Path, host: str, route: str) -> None:
    """Whatever the daemon is bound to; Ollama looks only where it is loopback."""
    async with serving(tmp_path / "models", host=host) as server:
        for name in ("evil.example.com", "evil.example.com:11434", "localhost.evil.com", "a.b."):
            reply = await server.ask(route, Host=name)
            assert (reply.status, reply.body) == (403, b""), name


@pytest.mark.cve("2024-28224")
async def test_names_of_ones_own_are_no_attack(tmp_path: Path) -> None:
    """A daemon for everybody is called by addresses, names without a dot and names it was told."""
    hosts = ("llm.example.com", "*.corp.example.com")
    async with serving(tmp_path / "models", host="0.0.0.0", hosts=hosts) as server:
        for name in ("8.8.8.8:80", "[2001:db8::1]", "ollama:11434", "nas.local", "LLM.example.com"):
            assert (await server.ask("GET /api/version", Host=name)).status == 200, name
        assert (await server.ask("GET /api/version", Host="gpu.corp.example.com")).status == 200
        assert (await server.ask("GET /api/version", Host="corp.example.com")).status == 403
    keys = ApiKeys.parse("alice=secret-of-alice")
    async with serving(tmp_path / "other", host="0.0.0.0", api_keys=keys) as server:
        headers = {"Host": "any.example.com", "Authorization": "Bearer secret-of-alice"}
        assert (await server.ask("GET /api/version", **headers)).status == 200
        headers["Authorization"] = "Bearer none"
        assert (await server.ask("GET /api/version", **headers)).status == 401


@pytest.mark.cve("CORS")
@pytest.mark.parametrize(
    "origin", ["http://evil.example.com", "null", "https://localhost.evil.com"]
)
@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", ""])
async def test_a_foreign_page_posts_in_vain(server: Server, origin: str, kind: str) -> None:
    """Such a POST needs no preflight: the browser sends it, so it is the daemon that must refuse."""
    headers = {"Origin": origin} | ({"Content-Type": kind} if kind else {})
    for path in ("/api/create", "/api/pull", "/api/generate", "/v1/chat/completions"):
        reply = await server.send("POST", path, b'{"model":"x"}', headers)
        assert (reply.status, reply.body) == (403, b"")
        assert reply.header("access-control-allow-origin") is None


@pytest.mark.cve("aiohttp", "2026-34525")
async def test_a_host_that_comes_twice_is_refused(server: Server) -> None:
    from lhama_testing_security import raw

    head = b"GET /api/version HTTP/1.1\r\nHost: localhost\r\nHost: evil.example.com\r\n\r\n"
    assert (await raw(server, head)).split()[1] == b"400"
