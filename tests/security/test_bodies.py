"""Bodies and names made by a fuzzer: answered as what they are, never by a crash."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import lhama_testing_invariants as invariants
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lhama_testing_http import Create, Server
from lhama_testing_security import each, raw

ROUTES = ("/api/chat", "/api/generate", "/api/create", "/api/show", "/api/pull", "/api/embed")
QUICK = settings(
    max_examples=300, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)

KEYS = st.sampled_from(
    (
        *("model", "messages", "role", "content", "options", "images", "tools", "format", "think"),
        *("keep_alive", "stream", "files", "from", "parameters", "num_ctx", "stop", "MODEL", ""),
    )
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)


@QUICK
@given(st.dictionaries(KEYS, VALUES, max_size=6))
def test_json_of_any_shape(value: dict[str, object]) -> None:
    invariants.body(json.dumps(value).encode())


@QUICK
@given(st.binary(max_size=200))
def test_bytes_of_any_kind(body: bytes) -> None:
    invariants.body(body)
    invariants.body(b'{"model":"' + body + b'"}')


@each("bodies")
async def test_the_corpus_of_bodies(server: Server, create: Create, path: Path) -> None:
    await create("ref")
    body = await asyncio.to_thread(path.read_bytes)
    for route in ROUTES:
        reply = await server.send("POST", route, body)
        assert 400 <= reply.status < 500, (route, reply.body)
        assert reply.json()["error"]
    assert (await server.ask("GET /health/ready")).status == 200


@pytest.mark.cve("2024-37032")
@QUICK
@given(st.text(max_size=100) | st.text("/.:\\\0a%", max_size=20))
def test_no_name_leaves_its_folder(text: str) -> None:
    invariants.name(text)


@pytest.mark.cve("2024-37032")
@QUICK
@given(st.text(max_size=80) | st.from_regex(r"sha256[:-][0-9a-fA-F./\0]{60,66}"))
def test_a_digest_is_one_file_name(text: str) -> None:
    invariants.digest(text)


@each("names")
async def test_the_corpus_of_names(server: Server, path: Path) -> None:
    """Every route with a name, every name: an error in words, and no file outside the store."""
    outside = set(os.listdir(server.settings.models.parent))
    for line in (await asyncio.to_thread(path.read_bytes)).split(b"\n"):
        name = line.decode("utf-8", "surrogateescape").encode("utf-8", "replace").decode()
        for method, route, body in (
            ("POST", "/api/show", {"model": name}),
            ("POST", "/api/generate", {"model": name, "prompt": "x"}),
            ("DELETE", "/api/delete", {"model": name}),
            ("POST", "/api/copy", {"source": name, "destination": name}),
            ("POST", "/api/create", {"model": name, "files": {name: name}, "stream": False}),
        ):
            reply = await server.send(method, route, json.dumps(body).encode())
            assert 400 <= reply.status <= 500, (name, route, reply.body)
            assert reply.json()["error"]
    assert set(os.listdir(server.settings.models.parent)) == outside


@pytest.mark.cve("2024-39719", "2024-39722")
async def test_whether_a_file_exists_is_not_told(server: Server, tmp_path: Path) -> None:
    """No path of this machine is taken over HTTP, so there and not there look the same."""
    (tmp_path / "there").write_bytes(b"GGUF")
    for body in (
        {"model": "m", "files": {"x.gguf": "PATH"}},
        {"model": "m", "adapters": {"x.gguf": "PATH"}, "files": {"y.gguf": "PATH"}},
    ):
        said = set()
        for name in ("there", "absent"):
            text = json.dumps(body | {"stream": False}).replace("PATH", str(tmp_path / name))
            reply = await server.send("POST", "/api/create", text.encode())
            said.add((reply.status, reply.body.replace(name.encode(), b"")))
        assert len(said) == 1
        assert 400 <= said.pop()[0] <= 500


@pytest.mark.cve("2024-39721")
@pytest.mark.parametrize("source", ["/dev/random", "/dev/zero", "/proc/self/mem", "/etc"])
async def test_no_device_is_read(server: Server, source: str) -> None:
    for body in ({"from": source}, {"files": {"x.gguf": source}}):
        reply = await server.ask("POST /api/create", {"model": "m", "stream": False, **body})
        assert 400 <= reply.status <= 500
        assert reply.json()["error"]


@pytest.mark.cve("aiohttp", "2025-69229")
async def test_a_body_in_a_hundred_thousand_pieces(server: Server) -> None:
    head = b"POST /api/show HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    body = b'{"model":"' + b"x" * 100_000 + b'"}'
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body)
    said = await raw(server, head, chunks, b"0\r\n\r\n")
    assert said.startswith((b"HTTP/1.1 400", b"HTTP/1.1 404"))


@pytest.mark.cve("aiohttp", "2026-22815")
async def test_trailers_without_end_are_cut_off(server: Server) -> None:
    head = b"POST /api/show HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n"
    trailers = [b"X-T%d: %s\r\n" % (n, b"y" * 1000) for n in range(2000)]
    said = await raw(server, head, *trailers)
    assert not said or said.startswith((b"HTTP/1.1 400", b"HTTP/1.1 404"))
    assert (await server.ask("GET /health/ready")).status == 200


@pytest.mark.cve("2025-69228")
async def test_a_form_of_endless_parts_is_refused(server: Server) -> None:
    """Nothing in them but names, so that no limit of a body is ever reached."""
    head = (
        b"POST /v1/audio/transcriptions HTTP/1.1\r\nHost: localhost\r\n"
        b"Content-Type: multipart/form-data; boundary=b\r\nContent-Length: 10000000000\r\n\r\n"
    )
    part = b'--b\r\nContent-Disposition: form-data; name="%d' + b"y" * 4000 + b'"\r\n\r\n\r\n'
    parts = [part % n for n in range(3000)]
    said = await raw(server, head, *parts, until=b"message too large", silence=30)
    assert said.startswith(b"HTTP/1.1 400")
    assert b"message too large" in said


@pytest.mark.cve("2026-21869")
@pytest.mark.parametrize(
    "option",
    [
        "num_keep",
        "num_ctx",
        "num_batch",
        "top_k",
        "repeat_last_n",
        "seed",
        "num_predict",
        "num_gpu",
    ],
)
async def test_no_number_reaches_an_engine_unbounded(
    server: Server, create: Create, option: str
) -> None:
    """Each is answered or refused; none hangs, and nobody else notices."""
    await create("ref")
    for number in (-(2**63), -1, 0, 2**31, 10**30):
        options = {"num_ctx": 64, "num_predict": 2, option: number}
        body = {"model": "ref", "prompt": "x", "stream": False, "options": options}
        reply = await server.ask("POST /api/generate", body)
        assert reply.status in (200, 400, 500), (number, reply.body)
        assert reply.json()
        assert (await server.ask("GET /health/ready")).status == 200
