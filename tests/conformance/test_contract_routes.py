"""Methods, paths and headers: what answers where no handler does, and how answers look (§0–1, §4)."""

from __future__ import annotations

import pytest
from lhama_testing_http import Create, Server

ALLOWED = {
    "/": "HEAD, GET",
    "/api/version": "HEAD, GET",
    "/api/tags": "HEAD, GET",
    "/api/status": "GET",
    "/api/ps": "GET",
    "/api/experimental/model-recommendations": "GET",
    "/api/blobs/x": "HEAD, POST",
    "/api/delete": "DELETE",
    "/api/user/keys/x": "DELETE",
    **dict.fromkeys(
        (
            "/api/show",
            "/api/generate",
            "/api/chat",
            "/api/embed",
            "/api/embeddings",
            "/api/pull",
            "/api/push",
            "/api/create",
            "/api/copy",
            "/api/me",
            "/api/signout",
            "/api/experimental/web_search",
            "/api/experimental/web_fetch",
        ),
        "POST",
    ),
}
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


@pytest.mark.parametrize("path", ALLOWED)
async def test_wrong_methods(server: Server, path: str) -> None:
    for method in METHODS:
        if method in ALLOWED[path].split(", "):
            continue
        reply = await server.send(method, path)
        assert reply.status == 405
        assert reply.header("allow") == ALLOWED[path]
        assert reply.header("content-type") == "text/plain"
        assert reply.body == (b"" if method == "HEAD" else b"405 method not allowed")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("path", ["/nope", "/api", "/API/tags", "/api/Tags", "/api/blobs/", "/v2"])
async def test_unknown_paths(server: Server, method: str, path: str) -> None:
    reply = await server.send(method, path)
    assert reply.status == 404
    assert reply.header("content-type") == "text/plain"
    assert reply.body == (b"" if method == "HEAD" else b"404 page not found")


@pytest.mark.parametrize(
    ("route", "status", "location", "body"),
    [
        ("GET /api/tags/", 301, "/api/tags", b'<a href="/api/tags">Moved Permanently</a>.\n\n'),
        ("HEAD /api/tags/", 307, "/api/tags", b""),
        ("POST /api/chat/", 307, "/api/chat", b""),
        ("DELETE /api/delete/", 307, "/api/delete", b""),
        ("GET //api/tags", 307, "/api/tags", b'<a href="/api/tags">Temporary Redirect</a>.\n\n'),
        ("GET /api/tags/?a=b", 301, "/api/tags?a=b", None),
        ("POST //api//chat", 307, "/api/chat", b""),
        ("GET /api/x/../tags", 307, "/api/tags", None),
        ("GET /api/./tags", 307, "/api/tags", None),
    ],
)
async def test_redirects(
    server: Server, route: str, status: int, location: str, body: bytes | None
) -> None:
    reply = await server.ask(route)
    assert (reply.status, reply.header("location")) == (status, location)
    html = route.startswith(("GET", "HEAD"))
    assert reply.header("content-type") == ("text/html; charset=utf-8" if html else None)
    assert body is None or reply.body == body


async def test_a_path_that_another_method_has_is_not_redirected(server: Server) -> None:
    """Only a method that the path without the slash answers sends there."""
    assert (await server.ask("POST /api/tags/")).status == 404


async def test_head_answers_like_get_without_a_body(server: Server) -> None:
    for path in ("/", "/api/version", "/api/tags"):
        get, head = await server.ask(f"GET {path}"), await server.ask(f"HEAD {path}")
        assert (head.status, head.body) == (200, b"")
        assert head.header("content-type") == get.header("content-type")
        assert head.header("content-length") == get.header("content-length") == str(len(get.body))


async def test_greeting_version_and_cloud(server: Server) -> None:
    reply = await server.ask("GET /")
    assert (reply.header("content-type"), reply.body) == (
        "text/plain; charset=utf-8",
        b"Ollama is running",
    )
    reply = await server.ask("GET /api/version")
    assert reply.header("content-type") == "application/json; charset=utf-8"
    assert reply.body == b'{"version":"0.33.0"}'
    reply = await server.ask("GET /api/status")
    assert reply.body == b'{"cloud":{"disabled":true,"source":"env"}}'
    assert (await server.ask("GET /api/tags")).body == b'{"models":[]}'
    assert (await server.ask("GET /api/ps")).body == b'{"models":[]}'


@pytest.mark.parametrize("what", ["search", "fetch"])
async def test_the_web_is_the_clouds(server: Server, what: str) -> None:
    route = f"POST /api/experimental/web_{what}"
    for body in (b"", b" \n"):
        reply = await server.ask(route, body)
        assert (reply.status, reply.body) == (400, b'{"error":"missing request body"}')
    for body in (b"{}", b"{broken", b'{"query":"x"}'):
        reply = await server.ask(route, body)
        assert reply.status == 403
        error = f"ollama cloud is disabled: web {what} is unavailable"
        assert reply.json() == {"error": error}


async def test_the_account_is_out_of_reach(server: Server) -> None:
    reply = await server.ask("POST /api/me")
    assert (reply.status, reply.json()) == (503, {"error": "account unavailable"})
    for route in ("POST /api/signout", "DELETE /api/user/keys/abc"):
        reply = await server.ask(route)
        assert (reply.status, reply.json()) == (401, {"error": "you are not currently signed in"})


async def test_blobs(server: Server) -> None:
    digest = "e997afd18e5f6be004fc193aed2c90291e68ab2c7599a62538c935b7fca6ab0f"
    for bad in ("x", "sha256:xyz", f"md5:{digest}", f"sha256:{digest}0", f"SHA256:{digest}"):
        for method in ("POST", "HEAD"):
            reply = await server.ask(f"{method} /api/blobs/{bad}", b"")
            assert reply.status == 400
        assert reply.body == b""
        assert (await server.ask(f"POST /api/blobs/{bad}", b"x")).json() == {
            "error": "invalid digest format"
        }
    assert (await server.ask(f"HEAD /api/blobs/sha256:{digest}")).status == 404
    for given in (f"sha256:{'0' * 64}", f"sha256:{digest.upper()}", f"sha256-{digest}"):
        reply = await server.ask(f"POST /api/blobs/{given}", b"hello blob")
        if given == f"sha256-{digest}":  # stored by now, under the digest it has
            assert (reply.status, reply.body) == (200, b"")
            continue
        error = f'digest mismatch, expected "{given}", got "sha256:{digest}"'
        assert (reply.status, reply.json()) == (400, {"error": error})
    for route in (f"HEAD /api/blobs/sha256-{digest}", f"POST /api/blobs/sha256:{digest}"):
        reply = await server.ask(route, b"whatever" if route.startswith("POST") else b"")
        assert (reply.status, reply.body, reply.header("content-type")) == (200, b"", None)
        assert reply.header("content-length") == (None if route.startswith("HEAD") else "0")
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    reply = await server.ask(f"POST /api/blobs/sha256:{empty}")
    assert (reply.status, reply.header("content-length")) == (201, "0")


async def test_streams_are_chunked_lines(server: Server, create: Create) -> None:
    await create("ref")
    body = {"model": "ref", "prompt": "x", "options": {"num_predict": 2}}
    reply = await server.ask("POST /api/generate", body)
    assert reply.header("transfer-encoding") == "chunked"
    assert reply.header("content-type") == "application/x-ndjson"
    assert reply.body.endswith(b"}\n")
    assert b"\n\n" not in reply.body
    reply = await server.ask("POST /api/generate", body | {"stream": False})
    assert reply.header("content-type") == "application/json; charset=utf-8"
    assert reply.body.endswith(b"}")
    assert reply.header("server") is None
    assert reply.header("date")
