"""The one socket the daemon listens on."""

from __future__ import annotations

import errno
import socket

from lhama.daemon.config import Settings
from lhama.daemon.errors import LhamaError


class CannotListen(LhamaError):
    """The address cannot be bound; the message says what to do."""


def bind(settings: Settings) -> socket.socket:
    """A bound socket that does not listen yet. Raises ``CannotListen``."""
    family, address = _resolve(settings)
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6 and not settings.host:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.bind(address)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise _in_words(error, settings.address) from None
    return listener


def _resolve(settings: Settings) -> tuple[int, tuple[object, ...]]:
    """The address to bind: IPv4 where a name has both; all of the machine for an empty host."""
    if not settings.host:
        if socket.has_dualstack_ipv6():
            return socket.AF_INET6, ("::", settings.port)
        return socket.AF_INET, ("0.0.0.0", settings.port)
    try:
        found = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        raise CannotListen(
            f"cannot listen on {settings.address}: no such host ({error.strerror}); "
            "check OLLAMA_HOST"
        ) from None
    family, _, _, _, address = min(found, key=lambda entry: entry[0] != socket.AF_INET)
    return family, address


def _in_words(error: OSError, address: str) -> CannotListen:
    if error.errno == errno.EADDRINUSE:
        return CannotListen(
            f"{address} is already in use: is another lhama or ollama running? Stop it, or choose "
            "another address, for example OLLAMA_HOST=127.0.0.1:11435"
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return CannotListen(f"no permission to listen on {address}: choose a port above 1023")
    if error.errno == errno.EADDRNOTAVAIL:
        return CannotListen(f"{address} is no address of this machine: check OLLAMA_HOST")
    return CannotListen(f"cannot listen on {address}: {error.strerror}")
