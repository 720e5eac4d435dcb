"""A small real registry on this machine, and a place for its blobs elsewhere; both may misbehave."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import json
import re
import ssl
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

MANIFEST_TYPE = "application/vnd.docker.distribution.manifest.v2+json"
IMAGE = "application/vnd.ollama.image."
CONFIG_TYPE = "application/vnd.docker.container.image.v1+json"
TOKEN = "a-token-of-the-test-registry"


@dataclass
class Fault:
    """How one GET of a blob goes wrong. Faults of a blob are used up one by one."""

    status: int = 206
    """200: the whole blob whatever was asked; from 400 on: an error."""
    after: int | None = None
    """Bytes that are sent before …"""
    then: str = "cut"
    """… the connection is ``cut``, or stalls (``stall``), or the body ends there (``end``)."""
    shift: int = 0
    """The range begins so many bytes too late."""
    total: int | None = None
    """The size of the blob that ``Content-Range`` claims."""
    gate: asyncio.Event | None = None
    """With ``after``: wait for this, and go on well."""


@dataclass
class Seen:
    """One request, and how many bytes of a blob it got."""

    method: str
    path: str
    headers: dict[str, str]
    at: str
    """``registry`` or ``elsewhere``."""
    query: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    served: int = 0
    time: float = field(default_factory=time.monotonic)


class Registry:
    """Manifests by ``namespace/model:tag`` and blobs by digest; what was asked of it is in ``seen``."""

    def __init__(self) -> None:
        self.manifests: dict[str, bytes] = {}
        self.blobs: dict[str, bytes] = {}
        self.faults: dict[str, deque[Fault]] = {}
        self.seen: list[Seen] = []
        self.host = ""
        self.elsewhere = ""
        """``scheme://host:port`` where blob requests are redirected; empty: served here."""
        self.location: Callable[[str], str] = lambda digest: (
            f"{self.elsewhere}/data/{digest}?sig=a%2Fb"
        )
        self.redirect_status = 307
        self.redirects: dict[str, str] = {}
        """Other paths that are redirected, and where to; not asked by the host they lead to."""
        self.manifest_headers: dict[str, str] = {}
        self.token: str = ""
        """If set, requests need it; ``realm`` hands it out."""
        self.realm = ""
        self.on_token: Callable[[web.Request], Awaitable[web.Response]] | None = None
        self.mountable: set[str] = set()
        self.redirect_uploads = False
        self._sessions = itertools.count()
        self.uploads: dict[str, bytearray] = {}
        self.finished: list[dict[str, str]] = []
        self.upload_faults: deque[int] = deque()
        """Statuses with which the next parts are refused."""
        self.upload_stalls = 0
        """So many of the next parts are not read."""
        self.retry_after = ""
        """Sent with errors that are faults, if set."""
        self.upload_gate: asyncio.Event | None = None
        """Parts are answered when it is set."""
        self.sending = 0
        """Blobs on their way at this moment."""
        self.upload_location = ""
        """Where uploads are sent to, if not here."""

    # ------------------------------------------------------------------------------- contents

    def add_blob(self, data: bytes) -> dict[str, Any]:
        """Digest and size, as a layer has them."""
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        self.blobs[digest] = data
        return {"digest": digest, "size": len(data)}

    def add_model(
        self, name: str, weights: bytes, *, details: dict[str, Any] | None = None, **texts: str
    ) -> dict[str, Any]:
        """A model of weights and text layers (``template``, ``license`` …); its manifest.

        ``details`` change its config.
        """
        layers = [{"mediaType": IMAGE + "model", **self.add_blob(weights)}]
        layers += [
            {"mediaType": IMAGE + kind, **self.add_blob(text.encode())}
            for kind, text in texts.items()
        ]
        config = {
            "model_format": "gguf",
            "model_family": "test",
            "model_families": ["test"],
            "model_type": "4",
            "file_type": "F32",
            "architecture": "amd64",
            "os": "linux",
            **(details or {}),
        }
        blob = self.add_blob(json.dumps(config, separators=(",", ":")).encode())
        return self.add_manifest(name, layers, {"mediaType": CONFIG_TYPE, **blob})

    def add_manifest(self, name: str, layers: list[Any], config: Any) -> dict[str, Any]:
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": config,
            "layers": layers,
        }
        self.manifests[name if ":" in name else f"{name}:latest"] = json.dumps(manifest).encode()
        return manifest

    def fail(self, digest: str, *faults: Fault) -> None:
        self.faults.setdefault(digest, deque()).extend(faults)

    # -------------------------------------------------------------------------------- evidence

    def served(self, digest: str) -> int:
        """Bytes of a blob sent so far, all requests together."""
        return sum(seen.served for seen in self.seen if seen.path.endswith(digest))

    def requests(self, method: str, part: str) -> list[Seen]:
        return [s for s in self.seen if s.method == method and part in s.path]

    # --------------------------------------------------------------------------------- answers

    async def _registry(self, request: web.Request) -> web.StreamResponse:
        seen = self._note(request, "registry")
        location = self.redirects.get(request.path, "")
        if location and f"//{request.host}/" not in location:
            return web.Response(status=307, headers={"Location": location})
        if request.path == "/token":
            assert self.on_token is not None
            return await self.on_token(request)
        if self.token and request.headers.get("Authorization") != f"Bearer {self.token}":
            challenge = f'Bearer realm="{self.realm}",service="svc",scope="repository:x:pull push"'
            return web.Response(status=401, headers={"WWW-Authenticate": challenge})
        match = re.fullmatch(r"/v2/([^/]+/[^/]+)/(manifests|blobs)/(.+)", request.path)
        if match is None:
            return web.Response(status=404)
        repository, kind, what = match.groups()
        if kind == "manifests":
            return await self._manifest(request, f"{repository}:{what}")
        if what.startswith("uploads/"):
            return await self._upload(request, what.removeprefix("uploads/"), seen)
        if what not in self.blobs:
            return web.Response(status=404)
        if request.method == "HEAD":
            return web.Response(headers={"Content-Length": str(len(self.blobs[what]))})
        if self.elsewhere and request.host not in self.elsewhere:
            headers = {"Location": self.location(what)}
            return web.Response(status=self.redirect_status, headers=headers)
        return await self._send_blob(request, what, seen)

    async def _manifest(self, request: web.Request, name: str) -> web.Response:
        if request.method == "PUT":
            self.manifests[name] = await request.read()
            return web.Response(status=201)
        if name not in self.manifests:
            return web.Response(status=404, text="not found")
        return web.Response(body=self.manifests[name], headers=self.manifest_headers)

    async def _elsewhere(self, request: web.Request) -> web.StreamResponse:
        seen = self._note(request, "elsewhere")
        what = request.path.rpartition("/")[2]
        if request.method == "PUT":
            return await self._take_part(request, what, seen)
        return await self._send_blob(request, what, seen)

    async def _send_blob(self, request: web.Request, digest: str, seen: Seen) -> web.StreamResponse:
        data = self.blobs[digest]
        queue = self.faults.get(digest)
        fault = queue.popleft() if queue else Fault()
        if fault.status >= 400:
            return self._fault(fault.status)
        start, stop = 0, len(data)
        if match := re.fullmatch(r"bytes=(\d+)-(\d+)", request.headers.get("Range", "")):
            start, stop = int(match[1]) + fault.shift, int(match[2]) + 1
        headers = {"Content-Range": f"bytes {start}-{stop - 1}/{fault.total or len(data)}"}
        if fault.status == 200 or "Range" not in request.headers:
            start, stop, headers = 0, len(data), {}
        response = web.StreamResponse(status=206 if headers else 200, headers=headers)
        body = data[start:stop]
        response.content_length = len(body)
        if fault.then == "end" and fault.after is not None:
            body = body[: fault.after]
            response.content_length = len(body)
        await response.prepare(request)
        self.sending += 1
        try:
            await self._write_faulty(request, response, body, fault, seen)
        finally:
            self.sending -= 1
        return response

    async def _write_faulty(
        self,
        request: web.Request,
        response: web.StreamResponse,
        body: bytes,
        fault: Fault,
        seen: Seen,
    ) -> None:
        first = body if fault.after is None else body[: fault.after]
        await self._write(response, first, seen)
        if fault.gate is not None:
            await fault.gate.wait()
            await self._write(response, body[len(first) :], seen)
        elif fault.after is not None and fault.then == "cut":
            assert request.transport is not None
            request.transport.abort()
        elif fault.after is not None and fault.then == "stall":
            await asyncio.Event().wait()

    @staticmethod
    async def _write(response: web.StreamResponse, data: bytes, seen: Seen) -> None:
        for at in range(0, len(data), 65536):
            block = data[at : at + 65536]
            await response.write(block)
            seen.served += len(block)

    async def _upload(self, request: web.Request, what: str, seen: Seen) -> web.Response:
        base = f"{request.scheme}://{request.host}{request.path.partition('uploads/')[0]}uploads"
        if request.method == "POST":
            digest = request.query.get("mount", "")
            if digest in self.mountable:
                return web.Response(status=201)
            session = f"session-{next(self._sessions)}"
            self.uploads[session] = bytearray()
            location = self.upload_location or f"{base}/{session}?_state=a%2Fb%3D"
            return web.Response(status=202, headers={"Location": location})
        location = {"Docker-Upload-Location": f"{base}/{what}?_state=c%2Bd"}
        if request.method == "PATCH":
            if self.redirect_uploads:
                to = f"{self.elsewhere}/upload/{what}?range={request.headers['Content-Range']}"
                return web.Response(status=307, headers={**location, "Location": to})
            return await self._take_part(request, what, seen, location)
        data = bytes(self.uploads.pop(what))
        self.finished.append(dict(request.query))
        if f"sha256:{hashlib.sha256(data).hexdigest()}" != request.query["digest"]:
            return web.Response(status=400, text="digest invalid")
        self.blobs[request.query["digest"]] = data
        return web.Response(status=201)

    async def _take_part(
        self, request: web.Request, what: str, seen: Seen, headers: dict[str, str] | None = None
    ) -> web.Response:
        if self.upload_stalls:
            self.upload_stalls -= 1
            await asyncio.Event().wait()
        body = await request.read()
        seen.served = len(body)
        if self.upload_gate is not None:
            await self.upload_gate.wait()
        if self.upload_faults:
            return self._fault(self.upload_faults.popleft())
        text = request.query.get("range") or request.headers["Content-Range"]
        start, stop = (int(n) for n in text.split("-"))
        assert stop - start + 1 == len(body)
        upload = self.uploads[what]
        upload.extend(b"\0" * max(0, stop + 1 - len(upload)))
        upload[start : stop + 1] = body
        return web.Response(status=202, headers=headers or {})

    def _fault(self, status: int) -> web.Response:
        headers = {"Retry-After": self.retry_after} if self.retry_after else {}
        return web.Response(status=status, text="a fault", headers=headers)

    def _note(self, request: web.Request, at: str) -> Seen:
        seen = Seen(request.method, request.path, dict(request.headers), at, dict(request.query))
        self.seen.append(seen)
        return seen


@asynccontextmanager
async def serving(
    *, host: str = "127.0.0.1", elsewhere: str = "localhost", tls: ssl.SSLContext | None = None
) -> AsyncIterator[Registry]:
    """A registry at ``host`` that keeps its blobs at another host name; both are this machine."""
    registry = Registry()
    async with AsyncExitStack() as stack:
        scheme = "https" if tls else "http"
        for name, handler in ((host, registry._registry), (elsewhere, registry._elsewhere)):
            port = await stack.enter_async_context(_listening(name, handler, tls))
            if handler == registry._registry:
                registry.host = f"{name}:{port}"
            else:
                registry.elsewhere = f"{scheme}://{name}:{port}"
        registry.realm = f"{scheme}://{registry.host}/token"
        yield registry


@asynccontextmanager
async def _listening(host: str, handler: Any, tls: ssl.SSLContext | None) -> AsyncIterator[int]:
    app = web.Application(client_max_size=1 << 30)
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    address = host if host.startswith("127.") else "127.0.0.1"
    site = web.TCPSite(runner, address, 0, ssl_context=tls)
    await site.start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()
