"""Which addresses an operation may connect to: a redirect never leads further inside.

Whoever calls pull names the registry, be it on this machine or in this network. Where the registry
sends us is not the caller's choice: a host on the internet that redirects to ``127.0.0.1`` or
``10.0.0.1`` wants something that it cannot reach itself. Names are resolved once and connections go
to the very addresses that were checked, so that a name cannot change its mind in between.
"""

from __future__ import annotations

import asyncio
import enum
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from lhama.daemon.errors import RegistryError


class Zone(enum.IntEnum):
    """How far inside an address lies."""

    PUBLIC = 0
    PRIVATE = 1
    LOOPBACK = 2
    NOWHERE = 3
    """Link-local and multicast addresses: no registry is there, but clouds' secrets are."""


_ZONE_NAMES = {Zone.PRIVATE: "a private network", Zone.LOOPBACK: "this machine"}


class NoSuchHost(OSError):
    """A name without an address, in Go's words."""


class Peer(NamedTuple):
    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


Lookup = Callable[[str], Awaitable[Sequence[str]]]
"""From a host's name to its addresses; raises ``OSError``."""


def zone(address: str) -> Zone:
    """The zone of an IP address. Raises ``ValueError`` for anything else."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped:
        ip = ip.ipv4_mapped
    if ip.is_loopback or ip.is_unspecified:
        return Zone.LOOPBACK
    if ip.is_link_local or ip.is_multicast:
        return Zone.NOWHERE
    return Zone.PUBLIC if ip.is_global else Zone.PRIVATE


async def look_up(host: str) -> Sequence[str]:
    """The system's resolver."""
    found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


class Reach(AbstractResolver):
    """The addresses of one operation: checked by ``admit``, used by its connections.

    The first host admitted is the registry: its zone is the limit of all others.
    """

    def __init__(self, lookup: Lookup = look_up) -> None:
        self._lookup = lookup
        self._limit: Zone | None = None
        self._addresses: dict[str, Sequence[str]] = {}

    async def admit(self, url: URL, *, proxied: bool = False) -> None:
        """Let connections go to the URL's host. Raises ``RegistryError`` and ``NoSuchHost``.

        A host behind a proxy is resolved there, not here: of it only literal addresses are checked.
        """
        host = _host(url)
        if host not in self._addresses:
            found = [] if proxied and not _is_address(host) else await self._find(host)
            self._addresses[host] = self._within_limit(host, found)

    async def trust(self, url: URL) -> None:
        """Let connections go to the URL's host, wherever it is: the proxy that the user set."""
        host = _host(url)
        if host not in self._addresses:
            self._addresses[host] = await self._find(host)

    async def _find(self, host: str) -> Sequence[str]:
        if _is_address(host):
            return [host]
        try:
            return await self._lookup(host)
        except OSError:
            raise NoSuchHost(f"lookup {host}: no such host") from None

    def forget(self, url: URL) -> None:
        """Look the host up again before the next connection; the limit stays."""
        self._addresses.pop(_host(url), None)

    def _within_limit(self, host: str, found: Sequence[str]) -> Sequence[str]:
        zones = {address: zone(address) for address in found}
        nearest = min(zones.values(), default=Zone.PUBLIC)
        if self._limit is None and nearest < Zone.NOWHERE:
            # The outermost address counts: one of ours beside its own buys a host nothing.
            self._limit = nearest
        limit = Zone.LOOPBACK if self._limit is None else self._limit
        allowed = [address for address in found if zones[address] <= limit]
        if found and not allowed:
            where = host if [host] == list(found) else f"{host}, which is {', '.join(found)}"
            if nearest is Zone.NOWHERE:
                raise RegistryError(f"no registry can be at the link-local address {where}")
            raise RegistryError(
                f"refused to follow the registry to {_ZONE_NAMES[nearest]} ({where}): "
                "it is not there itself"
            )
        return allowed

    def peer(self, url: URL) -> Peer:
        """Where a connection to an admitted host goes first."""
        addresses = self._addresses.get(_host(url)) or [_host(url)]
        return Peer(addresses[0], url.port or 0)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """aiohttp's question; only admitted hosts have an answer."""
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for address in self._addresses.get(host.lower(), ())
        ]

    async def close(self) -> None:
        """Nothing is held."""


def _host(url: URL) -> str:
    return (url.raw_host or "").lower()


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
