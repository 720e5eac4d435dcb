"""A small real HTTP server that answers the command line with prepared replies."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Protocol


@dataclass
class Outcome:
    """What a call of the command line came to; ``err`` ends with the message it exits with."""

    code: int
    out: str
    err: str


class Lhama(Protocol):
    """The fixture ``lhama`` of tests/cli."""

    def __call__(self, *arguments: str, stdin: str | None = "") -> Outcome: ...


@dataclass
class Seen:
    """One request as it arrived."""

    method: str
    path: str
    body: bytes
    headers: dict[str, str]

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Reply:
    """A status, and lines that are written one by one. ``cut``: hang up before the last chunk."""

    status: int = 200
    lines: list[bytes] = field(default_factory=list)
    cut: bool = False
    pause: threading.Event | None = None
    """Waited for before the last line."""


def ndjson(*objects: dict[str, Any], **how: Any) -> Reply:
    return Reply(lines=[json.dumps(o).encode() + b"\n" for o in objects], **how)


class Replay:
    """Replies by method and path; a list is used up one by one, a function sees the request."""

    def __init__(self) -> None:
        self.replies: dict[str, Reply | Callable[[Seen], Reply]] = {}
        self.seen: list[Seen] = []
        self.url = ""
        self.hung_up = threading.Event()

    def on(self, route: str, reply: Reply | Callable[[Seen], Reply]) -> None:
        self.replies[route] = reply

    def requests(self, route: str) -> list[Seen]:
        return [s for s in self.seen if f"{s.method} {s.path}" == route]


@contextmanager
def serving() -> Iterator[Replay]:
    replay = Replay()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: Any) -> None:
            pass

        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            seen = Seen(self.command, self.path, body, dict(self.headers))
            replay.seen.append(seen)
            reply = replay.replies.get(f"{seen.method} {seen.path}")
            if reply is None:
                reply = Reply(404, [b"404 page not found"])
            if callable(reply):
                reply = reply(seen)
            self.send_response(reply.status)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            try:
                for index, line in enumerate(reply.lines):
                    if reply.pause and index == len(reply.lines) - 1:
                        self._wait(reply.pause)
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
                if not reply.cut and seen.method != "HEAD":
                    self.wfile.write(b"0\r\n\r\n")
            except OSError:
                replay.hung_up.set()
            self.close_connection = True

        def _wait(self, pause: threading.Event) -> None:
            """Until ``pause`` is set, or the client has gone."""
            self.connection.settimeout(0.01)
            while not pause.is_set():
                try:
                    if not self.connection.recv(1):
                        replay.hung_up.set()
                        return
                except TimeoutError:
                    continue

        do_GET = do_POST = do_HEAD = do_DELETE = answer  # noqa: N815

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    replay.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield replay
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
