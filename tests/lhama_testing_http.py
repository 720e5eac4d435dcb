"""The real application on a free port, and a client that sends and shows raw HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from lhama.backends.reference import model
from lhama.backends.reference.model import Behaviour
from lhama.daemon import app, listener
from lhama.daemon.config import Settings

Create = Callable[..., Awaitable[None]]
"""What the fixture ``create`` is."""


@dataclass(frozen=True)
class Reply:
    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def header(self, name: str) -> str | None:
        """All values of a header, joined; ``None`` if it is not there."""
        found = [v for k, v in self.headers if k.lower() == name.lower()]
        return ", ".join(found) if found else None

    def json(self) -> Any:
        return msgspec.json.decode(self.body)


@dataclass(frozen=True)
class Server:
    settings: Settings

    async def send(
        self,
        method: str,
        path: str,
        body: bytes | dict[str, Any] = b"",
        headers: dict[str, str] | None = None,
    ) -> Reply:
        """One exchange on a connection of its own; the path and headers go out as they are."""
        payload = msgspec.json.encode(body) if isinstance(body, dict) else body
        sent = {"Host": self.settings.address, **(headers or {}), "Connection": "close"}
        if payload or method in ("POST", "DELETE"):
            sent["Content-Length"] = str(len(payload))
        lines = [f"{method} {path} HTTP/1.1", *(f"{k}: {v}" for k, v in sent.items()), "", ""]
        reader, writer = await asyncio.open_connection("127.0.0.1", self.settings.port)
        try:
            writer.write("\r\n".join(lines).encode() + payload)
            raw = await asyncio.wait_for(reader.read(), 30)
        finally:
            writer.close()
        return parse(raw)

    async def ask(self, route: str, body: bytes | dict[str, Any] = b"", **headers: str) -> Reply:
        """``await server.ask("POST /api/chat", body)``: one exchange."""
        method, _, path = route.partition(" ")
        return await self.send(method, path, body, headers)


def parse(raw: bytes) -> Reply:
    head, _, body = raw.partition(b"\r\n\r\n")
    status, *fields = head.decode("latin-1").split("\r\n")
    headers = tuple((k, v.strip()) for k, _, v in (field.partition(":") for field in fields))
    reply = Reply(int(status.split()[1]), headers, body)
    if reply.header("Transfer-Encoding") == "chunked":
        return dataclasses.replace(reply, body=_unchunked(body))
    return reply


def _unchunked(body: bytes) -> bytes:
    out = b""
    while body:
        size, _, body = body.partition(b"\r\n")
        length = int(size, 16)
        out, body = out + body[:length], body[length + 2 :]
    return out


@contextlib.asynccontextmanager
async def serving(models: Path, **flags: Any) -> AsyncIterator[Server]:
    """The application as ``serve`` runs it, without its signals."""
    settings = Settings(models=models, port=0, **{"host": "127.0.0.1", **flags})
    with contextlib.closing(listener.bind(settings)) as bound:
        settings = dataclasses.replace(settings, port=bound.getsockname()[1])
        runner = await app.start(settings, bound)
        try:
            yield Server(settings)
        finally:
            await runner.cleanup()


async def create_reference(
    server: Server,
    folder: Path,
    name: str,
    behaviour: Behaviour = Behaviour(),
    *,
    context: int = 2048,
    headers: dict[str, str] | None = None,
    **members: Any,
) -> None:
    """Create a reference model trained for ``context`` tokens; ``members``: further ones of the
    create request; ``headers``: what the server wants to see."""
    file = folder / "reference.gguf"
    model.write(file, behaviour, context=context)
    data = file.read_bytes()
    digest = "sha256:" + hashlib.sha256(data).hexdigest()
    await server.send("POST", f"/api/blobs/{digest}", data, headers)
    body = {"model": name, "files": {"model.gguf": digest}, "stream": False, **members}
    reply = await server.send("POST", "/api/create", body, headers)
    assert reply.json() == {"status": "success"}
