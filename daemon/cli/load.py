"""Many streamed answers read by one thread, cheaply: the client must not be what is measured."""

from __future__ import annotations

import json
import selectors
import socket
import time
import urllib.parse
from dataclasses import dataclass, field
from itertools import pairwise

from lhama.daemon.errors import LhamaError

TIMEOUT = 600.0
"""Seconds after which a load that stands still is given up."""

MARK = 64
"""Bytes that the longest mark of a token or an end takes."""


class LoadFailed(LhamaError):
    """An answer did not end well."""


class Dialect:
    """How a server is asked for a plain completion, and what marks a token in its stream."""

    path = "/api/generate"
    token = b'"done":false'
    end = b'"done":true'

    def body(self, model: str, prompt: str, tokens: int, options: dict[str, float]) -> bytes:
        """The request: ``prompt`` as it is, no template around it."""
        wanted = {**options, "num_predict": tokens}
        body = {"model": model, "prompt": prompt, "raw": True, "options": wanted}
        return json.dumps(body).encode()


@dataclass
class Answer:
    """One answer as its reader saw it; times in seconds from the beginning of the load."""

    sent: float = 0.0
    arrivals: list[float] = field(default_factory=list)
    """When each token was there; tokens that came together have one time."""
    ended: float = 0.0
    began: float = 0.0
    """The beginning of the load on the clock that all processes share (``time.monotonic``)."""

    @property
    def first(self) -> float:
        """Seconds to the first token."""
        return self.arrivals[0] - self.sent

    @property
    def rate(self) -> float:
        """Tokens per second after the first."""
        if len(self.arrivals) < 2:
            return 0.0
        return (len(self.arrivals) - 1) / (self.arrivals[-1] - self.arrivals[0])

    def gaps(self) -> list[float]:
        return [after - before for before, after in pairwise(self.arrivals)]


def run(
    url: str,
    model: str,
    prompts: list[str],
    tokens: int,
    options: dict[str, float],
    dialect: Dialect | None = None,
) -> tuple[list[Answer], float]:
    """Ask everything at once and read it to the end; the answers, and the seconds it all took.

    Raises ``LoadFailed`` and ``OSError``.
    """
    dialect = dialect or Dialect()
    place = urllib.parse.urlsplit(url)
    if place.scheme != "http":
        raise LoadFailed(f"a load is sent over plain HTTP, not to {url}")
    readers = [
        _Reader(dialect, place, dialect.body(model, prompt, tokens, options)) for prompt in prompts
    ]
    started = time.monotonic()
    with selectors.DefaultSelector() as selector:
        for reader in readers:
            reader.send(started)
            selector.register(reader.socket, selectors.EVENT_READ, reader)
        while selector.get_map():
            events = selector.select(TIMEOUT)
            if not events:
                raise LoadFailed(f"{url} sent nothing for {TIMEOUT:.0f} seconds")
            now = time.monotonic() - started
            for key, _ in events:
                if key.data.read(now):
                    selector.unregister(key.fileobj)
                    key.data.socket.close()
    return [reader.answer for reader in readers], time.monotonic() - started


class _Reader:
    """One connection."""

    def __init__(self, dialect: Dialect, place: urllib.parse.SplitResult, body: bytes) -> None:
        self.answer = Answer()
        self._dialect = dialect
        self._tail = b""
        head = (
            f"POST {dialect.path} HTTP/1.1\r\nHost: {place.netloc}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
            "Connection: close\r\n\r\n"
        )
        self._request = head.encode() + body
        self.socket = socket.create_connection((place.hostname, place.port or 80), TIMEOUT)

    def send(self, started: float) -> None:
        self.answer.began = started
        self.answer.sent = time.monotonic() - started
        self.socket.sendall(self._request)

    def read(self, now: float) -> bool:
        """Take what has come; whether it was the last."""
        data = self.socket.recv(1 << 17)
        text = self._tail + data  # a mark may be cut in two
        mark = self._dialect.token
        self.answer.arrivals += [now] * text.count(mark)
        cut = text.rfind(mark)
        self._tail = (text[cut + len(mark) :] if cut >= 0 else text)[-MARK:]
        if self._dialect.end in text and not self.answer.ended:
            self.answer.ended = now
        if not data and not (self.answer.ended and self.answer.arrivals):
            words = text[-300:].decode(errors="replace")
            raise LoadFailed(f"an answer did not end well: {words}")
        return not data
