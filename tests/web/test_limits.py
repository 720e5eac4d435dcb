"""What aiohttp leaves open: sizes, stalls and depth."""

from __future__ import annotations

import asyncio

import pytest
from lhama_testing_http import Server, parse

from lhama.daemon import app
from lhama.daemon.web import body
from lhama.daemon.web.body import zstd


async def _raw(server: Server, text: bytes) -> bytes:
    """Everything the server says to these bytes until it hangs up."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.settings.port)
    try:
        writer.write(text)
        return await asyncio.wait_for(reader.read(), 10)
    finally:
        writer.close()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Timeouts short enough to be seen; the server starts after this fixture."""
    monkeypatch.setattr(app, "IDLE_TIMEOUT", 0.3)
    monkeypatch.setattr(app, "LINGER", 0.3)
    monkeypatch.setattr(body, "STALL", 0.3)


class TestTimeouts:
    """``impatient`` comes before ``server``: the server reads its timeouts at its start."""

    @pytest.mark.fault(29)
    @pytest.mark.parametrize("sent", [b"", b"GET /api/version HTTP/1.1\r\nHost: lo"])
    async def test_a_connection_without_a_whole_request_is_closed(
        self, impatient: None, server: Server, sent: bytes
    ) -> None:
        assert await _raw(server, sent) == b""

    @pytest.mark.fault(29)
    async def test_hundreds_that_go_on_byte_by_byte(self, impatient: None, server: Server) -> None:
        """Bytes of a header do not move the deadline, and others are served meanwhile."""

        async def drip() -> bytes:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.settings.port)
            answer = asyncio.ensure_future(reader.read())
            try:
                writer.write(b"GET /api/version HTTP/1.1\r\nX: ")
                while not (await asyncio.wait({answer}, timeout=0.1))[0]:
                    writer.write(b"x")
                return await answer
            except ConnectionError:
                return b""
            finally:
                writer.close()

        dripping = asyncio.gather(*(drip() for _ in range(400)))
        assert (await server.ask("GET /api/version")).status == 200
        assert not any(await dripping)
        assert (await server.ask("GET /api/version")).status == 200

    @pytest.mark.fault(29)
    async def test_an_idle_connection_is_closed(self, impatient: None, server: Server) -> None:
        reply = await _raw(server, b"GET /api/version HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert reply.startswith(b"HTTP/1.1 200")

    async def test_a_body_that_stops_is_given_up(self, impatient: None, server: Server) -> None:
        head = b"POST /api/show HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        reply = parse(await _raw(server, head + b'Content-Length: 50\r\n\r\n{"model":'))
        assert reply.status == 408
        assert "stopped" in reply.json()["error"]


@pytest.mark.fault(31)
@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_too_large_is_a_json_413(
    server: Server, monkeypatch: pytest.MonkeyPatch, chunked: bool
) -> None:
    monkeypatch.setattr(body, "MAX_JSON", 1000)
    content = b'{"model":"' + b"x" * 2000 + b'"}'
    if chunked:
        length = b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (
            len(content),
            content,
        )
    else:
        length = b"Content-Length: %d\r\n\r\n%s" % (len(content), content)
    head = b"POST /api/show HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    reply = parse(await _raw(server, head + length))
    assert reply.status == 413
    assert reply.header("content-type") == "application/json; charset=utf-8"
    assert "larger than 1000 bytes" in reply.json()["error"]


@pytest.mark.fault(32)
@pytest.mark.parametrize(
    "content",
    [
        b"[" * 100_000,
        b'{"options":' + b'{"a":' * 20_000 + b"1" + b"}" * 20_001,
        b'{"model":NaN}',
        b'{"model":"\\ud800',
        b"\xff\xfe",
    ],
)
async def test_broken_json_is_a_400(server: Server, content: bytes) -> None:
    reply = await server.send("POST", "/api/chat", content)
    assert reply.status == 400
    assert reply.json()["error"]


async def test_a_gzip_bomb_is_not_unpacked(server: Server) -> None:
    reply = await server.send("POST", "/api/show", b"\x1f\x8b\x08", {"Content-Encoding": "gzip"})
    assert reply.status == 400
    assert "invalid character" in reply.json()["error"]


async def test_an_upload_that_breaks_off_leaves_nothing(server: Server) -> None:
    digest = "sha256:" + "0" * 64
    head = f"POST /api/blobs/{digest} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n\r\n"
    _, writer = await asyncio.open_connection("127.0.0.1", server.settings.port)
    writer.write(head.encode() + b"begun")
    await writer.drain()
    await asyncio.sleep(0.2)
    writer.close()
    await asyncio.sleep(0.2)
    blobs = server.settings.models / "blobs"
    assert list(blobs.iterdir()) == []


@pytest.mark.parametrize("path", ["/api/blobs/..%2f..%2fetc", "/api/blobs/sha256:xyz"])
async def test_a_digest_that_is_none_touches_no_file(server: Server, path: str) -> None:
    reply = await server.send("POST", path, b"x")
    assert reply.status in (307, 400, 404)
    assert not (server.settings.models / "blobs" / ".." / "etc").exists()


class TestPackedBodies:
    """Bodies packed with zstd, as Codex sends them."""

    HEADERS = {"Content-Encoding": "zstd"}

    async def test_a_packed_body_is_read(self, server: Server) -> None:
        body = zstd.compress(b'{"model":"nope","input":"x"}')
        reply = await server.send("POST", "/v1/responses", body, self.HEADERS)
        assert (reply.status, reply.json()["error"]["message"]) == (404, "model 'nope' not found")

    @pytest.mark.parametrize("body", [b"{}", zstd.compress(b'{"model":"x"}')[:-3], b""])
    async def test_what_is_not_packed_is_refused(self, server: Server, body: bytes) -> None:
        reply = await server.send("POST", "/api/show", body, self.HEADERS)
        assert (reply.status, reply.json()) == (400, {"error": "failed to decompress zstd body"})

    async def test_a_bomb_is_not_unpacked(self, server: Server) -> None:
        bomb = zstd.compress(b" " * (body.MAX_UNPACKED + 1))
        assert len(bomb) < 10_000
        reply = await server.send("POST", "/v1/messages", bomb, self.HEADERS)
        assert (reply.status, reply.json()["error"]["type"]) == (413, "request_too_large")
