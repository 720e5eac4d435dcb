"""Health, and the ids that requests go by."""

from __future__ import annotations

import asyncio
import json
import socket
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from lhama_testing_daemon import running
from lhama_testing_faults import wait_until
from lhama_testing_http import Server, serving

from lhama.daemon.apikeys import ApiKeys
from lhama.daemon.scheduler import Scheduler
from lhama.daemon.web import health

GOOD = {"live": "live", "ready": "ready"}


@pytest.mark.parametrize("kind", ["live", "ready"])
async def test_a_daemon_that_moves_is_well(server: Server, kind: str) -> None:
    reply = await server.ask(f"GET /health/{kind}")
    assert (reply.status, reply.json()) == (200, {"status": GOOD[kind]})
    assert (await server.ask(f"HEAD /health/{kind}")).status == 200
    assert (await server.ask(f"POST /health/{kind}")).status == 405


async def test_a_scheduler_that_stands_still_is_noticed(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The port is open and the event loop runs, but nothing would be answered."""

    async def never(scheduler: Scheduler) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(Scheduler, "pulse", never)
    monkeypatch.setattr(health, "PATIENCE", 0.05)
    for kind in GOOD:
        reply = await server.ask(f"GET /health/{kind}")
        assert reply.status == 503
        assert reply.json()["reasons"] == ["the scheduler has not moved for 0 seconds"]


async def test_health_needs_no_key(tmp_path: Path) -> None:
    keys = ApiKeys.parse("alice=secret-of-alice")
    async with serving(tmp_path / "models", api_keys=keys) as server:
        assert (await server.ask("GET /health")).status == 200
        assert (await server.ask("GET /health/other")).status == 401


async def test_the_host_rule_holds_for_health_too(server: Server) -> None:
    assert (await server.ask("GET /health/live", Host="evil.example.com")).status == 403


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("abc-123", True),
        ("", False),
        ("two words", False),
        ("x" * 129, False),
        ('a"b', False),
    ],
)
async def test_a_request_has_an_id(server: Server, given: str, kept: bool) -> None:
    reply = await server.ask("GET /api/version", **{"X-Request-Id": given} if given else {})
    shown = reply.header("x-request-id")
    assert shown
    assert (shown == given) is kept


def test_the_log_tells_requests_apart(tmp_path: Path) -> None:
    with running(tmp_path / "models", LHAMA_LOG_FORMAT="json") as daemon:
        request = urllib.request.Request(f"{daemon.url}/api/show", b'{"model":"none"}')
        request.add_header("X-Request-Id", "my-request")
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request, timeout=30)
        with refused.value as reply:
            assert reply.headers["X-Request-Id"] == "my-request"
        daemon.call("/health/ready")
        with socket.create_connection(("127.0.0.1", daemon.port), timeout=30) as stranger:
            stranger.sendall(b"GET / HTTP/1.1\r\nX: a\x1bb\r\n\r\n")
            assert b" 400 " in stranger.recv(100)
        assert wait_until(lambda: "handling request" in daemon.log.read_text())
        lines = [json.loads(line) for line in daemon.log.read_text().splitlines()]
    (nonsense,) = [line for line in lines if "handling request" in line["event"]]
    assert nonsense["level"] == "warning"
    assert "exception" not in nonsense
    shown = [line for line in lines if line["event"] == "request" and line["path"] == "/api/show"]
    (line,) = shown
    assert (line["request"], line["status"], line["method"]) == ("my-request", 404, "POST")
    assert line["client"] == "127.0.0.1"
    assert not [line for line in lines if line.get("path") == "/health/ready"], "probes are many"
