"""The command line's side of the HTTP API: standard library only, so that it starts fast.

It talks to any Ollama-compatible server; nothing here knows that lhama is at the other end.
"""

from __future__ import annotations

import http.client
import json
import os
import platform
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from typing import Any, BinaryIO, TypeAlias
from urllib.parse import urlsplit

from lhama.daemon.errors import LhamaError

CONNECT_SECONDS = 5.0
MAX_LINE = 8 << 20
"""Longest line of a stream, in bytes; Ollama's own client has the same limit."""
BLOCK = 1 << 20

Json: TypeAlias = dict[str, Any]
Sent: TypeAlias = Callable[[int], None]
"""Called with the bytes uploaded so far."""


class Unreachable(LhamaError):
    """Nobody answers at the server's address, or it hung up."""


class ServerError(LhamaError):
    """The server answered with an error; ``status`` is its HTTP status, 200 within a stream."""


class Client:
    """Calls of one server's API. Every call is a connection of its own; closing it cancels.

    ``url`` and ``api_key`` as of ``Settings``. All calls raise ``Unreachable`` and
    ``ServerError``.
    """

    def __init__(self, url: str, api_key: str = "") -> None:
        self.url = url.rstrip("/")
        self._authorization = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        parts = urlsplit(self.url)
        secure = parts.scheme == "https"
        self._open = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        self._host, self._port = parts.hostname or "127.0.0.1", parts.port
        self._prefix = parts.path

    def get(self, path: str) -> Json:
        return self._whole("GET", path, None)

    def post(self, path: str, body: Json) -> Json:
        """One JSON answer; an empty body reads as ``{}``."""
        return self._whole("POST", path, body)

    def delete(self, path: str, body: Json) -> Json:
        return self._whole("DELETE", path, body)

    def stream(self, path: str, body: Json) -> Generator[Json, None, None]:
        """The objects of an NDJSON answer as they arrive; closing the iterator hangs up.

        An object with a non-empty ``error`` is raised as ``ServerError``; an end without a last
        word (``done`` or ``success``) as ``Unreachable``.
        """
        last: Json = {}
        encoded = json.dumps(body).encode()
        with self._request("POST", path, encoded, accept="application/x-ndjson") as response:
            while line := response.readline(MAX_LINE + 1):
                if len(line) > MAX_LINE:
                    raise ServerError(f"{self.url} sent a line of more than {MAX_LINE} bytes")
                if line.strip():
                    last = self._decode(line, response.status)
                    yield last
        if not last.get("done") and last.get("status") != "success":
            raise Unreachable(f"lost the server at {self.url}: the answer ended early")

    def has_blob(self, digest: str) -> bool:
        try:
            with self._request("HEAD", f"/api/blobs/{digest}"):
                return True
        except ServerError as error:
            if error.status == 404:
                return False
            raise

    def upload(self, digest: str, file: BinaryIO, sent: Sent) -> None:
        """Store the content of ``file`` on the server under its digest."""
        size = os.fstat(file.fileno()).st_size

        def blocks() -> Iterator[bytes]:
            total = 0
            while block := file.read(BLOCK):
                yield block
                total += len(block)
                sent(total)

        with self._request("POST", f"/api/blobs/{digest}", blocks(), size=size) as response:
            response.read()

    def _whole(self, method: str, path: str, body: Json | None) -> Json:
        encoded = None if body is None else json.dumps(body).encode()
        with self._request(method, path, encoded) as response:
            content = response.read()
            return self._decode(content, response.status) if content.strip() else {}

    def _decode(self, content: bytes, status: int) -> Json:
        try:
            answer = json.loads(content)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise ServerError(f"{self.url} did not answer in JSON: is it an Ollama API?")
        if answer.get("error"):
            raise ServerError(_text(answer["error"]), status=status)
        return answer

    @contextmanager
    def _request(
        self,
        method: str,
        path: str,
        body: bytes | Iterator[bytes] | None = None,
        *,
        accept: str = "application/json",
        size: int | None = None,
    ) -> Iterator[http.client.HTTPResponse]:
        headers = {"Accept": accept, "User-Agent": user_agent(), **self._authorization}
        if isinstance(body, bytes):
            headers["Content-Type"] = "application/json"
        elif body is not None:
            headers |= {"Content-Type": "application/octet-stream", "Content-Length": str(size)}
        with closing(self._open(self._host, self._port, timeout=CONNECT_SECONDS)) as connection:
            self._connect(connection)
            try:
                response = self._send(connection, method, self._prefix + path, body, headers)
                if response.status >= 400:
                    raise _failure(response)
                yield response
            except (OSError, http.client.HTTPException) as error:
                reason = str(error) or type(error).__name__
                raise Unreachable(f"lost the server at {self.url}: {reason}") from error

    def _connect(self, connection: http.client.HTTPConnection) -> None:
        try:
            connection.connect()
        except ConnectionRefusedError:
            raise Unreachable(
                f"could not connect to a server at {self.url}: start one with 'lhama serve', "
                "or set OLLAMA_HOST to where it runs"
            ) from None
        except OSError as error:
            reason = error.strerror or error
            raise Unreachable(f"could not connect to a server at {self.url}: {reason}") from error
        # A model may take minutes to load: only connecting has a limit.
        connection.sock.settimeout(None)

    @staticmethod
    def _send(
        connection: http.client.HTTPConnection,
        method: str,
        path: str,
        body: bytes | Iterator[bytes] | None,
        headers: dict[str, str],
    ) -> http.client.HTTPResponse:
        try:
            connection.request(method, path, body, headers)
        except (BrokenPipeError, ConnectionResetError):
            # The server may refuse before it has read everything: its answer says why.
            pass
        return connection.getresponse()


def user_agent() -> str:
    return f"lhama ({platform.machine()} {platform.system().lower()})"


def _failure(response: http.client.HTTPResponse) -> ServerError:
    content = response.read(BLOCK)
    try:
        message = _text(json.loads(content)["error"])
    except (ValueError, KeyError, TypeError):
        message = content.decode("utf-8", "replace").strip()
    fallback = f"the server answered {response.status} {response.reason}"
    return ServerError(message or fallback, status=response.status)


def _text(error: Any) -> str:
    """An error's message, plain or in OpenAI's envelope."""
    if isinstance(error, dict) and isinstance(error.get("message"), str):
        return str(error["message"])
    return error if isinstance(error, str) else json.dumps(error)
