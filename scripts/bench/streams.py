"""Many streamed answers read by one thread, cheaply: the client must not be what is measured."""

from __future__ import annotations

import json
import selectors
import socket
import time
import urllib.parse
from dataclasses import dataclass, field

TIMEOUT = 600.0
"""Seconds after which a load that does not end is given up."""


@dataclass(frozen=True)
class Dialect:
    """How a server is asked for a plain completion, and what marks a token in its stream."""

    path: str
    token: bytes
    end: bytes

    def body(self, model: str, prompt: str, tokens: int, options: dict[str, float]) -> bytes:
        raise NotImplementedError


class Ollama(Dialect):
    def body(self, model: str, prompt: str, tokens: int, options: dict[str, float]) -> bytes:
        wanted = {**options, "num_predict": tokens}
        return json.dumps(
            {"model": model, "prompt": prompt, "raw": True, "options": wanted}
        ).encode()


class LlamaServer(Dialect):
    def body(self, model: str, prompt: str, tokens: int, options: dict[str, float]) -> bytes:
        return json.dumps(
            {
                **options,
                "prompt": prompt,
                "n_predict": tokens,
                "stream": True,
                "cache_prompt": True,
                "samplers": ["top_k", "top_p", "temperature"],
            }
        ).encode()


class OpenAI(Dialect):
    def body(self, model: str, prompt: str, tokens: int, options: dict[str, float]) -> bytes:
        known = {k: v for k, v in options.items() if k in ("temperature", "top_p", "seed")}
        return json.dumps(
            {**known, "model": model, "prompt": prompt, "max_tokens": tokens, "stream": True}
        ).encode()


DIALECTS = {
    "ollama": Ollama("/api/generate", b'"done":false', b'"done":true'),
    "llamacpp": LlamaServer("/completion", b'"stop":false', b'"stop":true'),
    "openai": OpenAI("/v1/completions", b'"text":', b"[DONE]"),
}


@dataclass
class Answer:
    """One answer as its reader saw it; times in seconds from the beginning of the load."""

    sent: float = 0.0
    arrivals: list[float] = field(default_factory=list)
    """When each token was there; tokens that came together have one time."""
    ended: float = 0.0

    @property
    def first(self) -> float:
        return self.arrivals[0] - self.sent


@dataclass
class Target:
    """A server, and the words it understands."""

    url: str
    dialect: str
    model: str = ""

    def load(
        self, prompts: list[str], tokens: int, options: dict[str, float]
    ) -> tuple[list[Answer], float]:
        """Ask all at once and read all to the end; returns the answers and the seconds it took.

        Raises ``RuntimeError`` where one does not end well.
        """
        dialect = DIALECTS[self.dialect]
        place = urllib.parse.urlsplit(self.url)
        readers = [
            _Reader(dialect, place, dialect.body(self.model, prompt, tokens, options))
            for prompt in prompts
        ]
        started = time.perf_counter()
        with selectors.DefaultSelector() as selector:
            for reader in readers:
                reader.send(started)
                selector.register(reader.socket, selectors.EVENT_READ, reader)
            open_ = len(readers)
            while open_:
                events = selector.select(TIMEOUT)
                if not events:
                    raise RuntimeError(f"{self.url} sent nothing for {TIMEOUT:.0f} s")
                now = time.perf_counter() - started
                for key, _ in events:
                    if key.data.read(now):
                        selector.unregister(key.fileobj)
                        key.data.socket.close()
                        open_ -= 1
        return [reader.answer for reader in readers], time.perf_counter() - started


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
        self.answer.sent = time.perf_counter() - started
        self.socket.sendall(self._request)

    def read(self, now: float) -> bool:
        """Take what has come; whether it was the last."""
        data = self.socket.recv(1 << 17)
        # A mark may be cut in two: keep what is too short to be one, count whole ones only.
        text = self._tail + data
        mark = self._dialect.token
        self.answer.arrivals += [now] * text.count(mark)
        cut = text.rfind(mark)
        rest = text[cut + len(mark) :] if cut >= 0 else text
        self._tail = rest[-64:]
        if self._dialect.end in text and not self.answer.ended:
            self.answer.ended = now
        if data:
            return False
        if not self.answer.ended:
            raise RuntimeError(
                f"an answer did not end well: {text[-300:].decode(errors='replace')}"
            )
        return True
