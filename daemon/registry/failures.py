"""Why a request failed, in the words of Go's HTTP client: clients of Ollama see and match them."""

from __future__ import annotations

import asyncio
import os
import ssl

import aiohttp
from yarl import URL

from lhama.daemon.durations import quote
from lhama.daemon.errors import RegistryError
from lhama.daemon.registry.reach import NoSuchHost, Peer

_PROBE_SECONDS = 5.0


class Passing(RegistryError):
    """What another try may do better: no answer, half of one, or one of a server in trouble."""

    def __init__(self, message: str, after: float = 0.0) -> None:
        """``after``: seconds that the server wants to be left alone."""
        super().__init__(message)
        self.after = after


class Standstill(TimeoutError):
    """Nothing of a body was taken for too long."""


async def failure(error: Exception, method: str, url: URL, peer: Peer) -> RegistryError:
    """What to say of an exception of aiohttp; ``peer`` is who was to answer."""
    if isinstance(error, aiohttp.ClientConnectorSSLError):
        reason = await _tls_reason(url.host or "", peer)
    else:
        reason = _reason(error, peer)
    final = isinstance(error, RegistryError | aiohttp.ClientConnectorCertificateError)
    kind = RegistryError if final else Passing
    return kind(f"{method.capitalize()} {quote(str(url))}: {reason}")


def _reason(error: Exception, peer: Peer) -> str:
    match error:
        case RegistryError():
            return error.message
        case NoSuchHost():
            return f"dial tcp: {error}"
        case aiohttp.ClientProxyConnectionError():
            return f"proxyconnect tcp: dial tcp: connect: {_words(error)}"
        case aiohttp.ClientConnectorCertificateError():
            return f"tls: failed to verify certificate: x509: {_certificate(error)}"
        case aiohttp.ClientConnectorError():
            return f"dial tcp {peer}: connect: {_words(error)}"
        case aiohttp.ConnectionTimeoutError():
            return f"dial tcp {peer}: i/o timeout"
        case Standstill():
            return f"write tcp {peer}: i/o timeout"
        case aiohttp.SocketTimeoutError() | TimeoutError():
            return "net/http: timeout awaiting response headers"
        case aiohttp.ServerDisconnectedError():
            return "EOF"
        case ConnectionResetError() | BrokenPipeError() | aiohttp.ClientOSError():
            return f"read tcp {peer}: {_words(error)}"
        case aiohttp.ClientPayloadError():
            return "unexpected EOF"
        case _:
            return str(error) or type(error).__name__


def _words(error: Exception) -> str:
    """The system's words for its error, as Go writes them: in lower case."""
    number = getattr(error, "errno", None)
    return os.strerror(number).lower() if number else str(error)


def _certificate(error: aiohttp.ClientConnectorCertificateError) -> str:
    reason = error.certificate_error
    text = reason.verify_message if isinstance(reason, ssl.SSLCertVerificationError) else ""
    if "expired" in text:
        return "certificate has expired or is not yet valid"
    if "mismatch" in text or "valid for" in text:
        return text.lower()
    return "certificate signed by unknown authority"


async def _tls_reason(host: str, peer: Peer) -> str:
    """Why a TLS handshake failed: most often a server that speaks plain HTTP.

    OpenSSL does not tell what came instead, so a second ``ClientHello`` is answered to be looked at.
    """
    try:
        async with asyncio.timeout(_PROBE_SECONDS):
            first = await _answer_to_hello(host, peer)
    except (OSError, asyncio.IncompleteReadError):
        first = b""
    if first == b"HTTP/":
        return "http: server gave HTTP response to HTTPS client"
    if first[:2] == b"\x15\x03":
        return "remote error: tls: handshake failure"
    return "tls: first record does not look like a TLS handshake" if first else "EOF"


async def _answer_to_hello(host: str, peer: Peer) -> bytes:
    """The first five bytes a server says to a TLS client."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    hello = ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname=host)
    try:
        hello.do_handshake()
    except ssl.SSLWantReadError:
        pass
    reader, writer = await asyncio.open_connection(*peer)
    try:
        writer.write(outgoing.read())
        return await reader.readexactly(5)
    finally:
        writer.close()
