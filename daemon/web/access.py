"""Who may call: origins (CORS) and Host names, by Ollama's rules. Pure functions.

Both keep web pages of strangers away from a daemon without passwords: the origin check stops
scripts on foreign pages, the Host check stops DNS names that were pointed at this machine.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from functools import cache

import psutil

ALLOWED_METHODS = "GET,POST,PUT,PATCH,DELETE,HEAD,OPTIONS"
MAX_AGE = 12 * 3600
ALLOWED_HEADERS = ",".join(
    (
        "Authorization",
        "Content-Type",
        "User-Agent",
        "Accept",
        "X-Requested-With",
        "Openai-Beta",
        *(
            f"X-Stainless-{name}"
            for name in (
                "Arch",
                "Async",
                "Custom-Poll-Interval",
                "Helper-Method",
                "Lang",
                "Os",
                "Package-Version",
                "Poll-Helper",
                "Retry-Count",
                "Runtime",
                "Runtime-Version",
                "Timeout",
            )
        ),
    )
)

# Go's idea of private, which is narrower than Python's: no link-local addresses among it.
_PRIVATE = tuple(
    map(ipaddress.ip_network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"))
)
_HOST_CHARACTERS = re.compile(r"[-!$%&'()*+,.:;=\[\]_~A-Za-z0-9]*")
_LOCAL_SUFFIXES = (".localhost", ".local", ".internal")


def origin_allowed(origin: str, allowed: tuple[str, ...]) -> bool:
    """Whether an origin is listed; ``*`` in a pattern stands for any text, once."""
    return any(_matches(origin, pattern) for pattern in allowed)


def _matches(origin: str, pattern: str) -> bool:
    before, star, after = pattern.partition("*")
    if not star:
        return origin == pattern
    long_enough = len(origin) >= len(before) + len(after)
    return long_enough and origin.startswith(before) and origin.endswith(after)


def same_origin(origin: str, host: str) -> bool:
    return origin in (f"http://{host}", f"https://{host}")


def well_formed(value: str) -> bool:
    """Whether a ``Host`` header holds only what may stand in one; Go looks at no more than that."""
    return _HOST_CHARACTERS.fullmatch(value) is not None


def split_host(value: str) -> str:
    """The host of a ``Host`` header, without port and brackets."""
    bare = value.strip("[]")
    if _address(bare) is not None:
        return bare
    host, colon, _ = value.rpartition(":")
    return (host if colon else value).strip("[]")


def address_allowed(host: str) -> bool:
    """Whether the host is an address of this machine or of a private network."""
    address = _address(host)
    if address is None:
        return False
    if isinstance(address, ipaddress.IPv6Address):
        address = address.ipv4_mapped or address
    local = address.is_loopback or address.is_unspecified
    return local or any(address in net for net in _PRIVATE) or host in _own_addresses()


def name_allowed(host: str) -> bool:
    """Whether the host is a name that only local software uses."""
    lowered = host.lower()
    if lowered in ("", "localhost", socket.gethostname().lower()):
        return True
    return lowered.endswith(_LOCAL_SUFFIXES)


def name_trusted(host: str, trusted: tuple[str, ...]) -> bool:
    """Whether a daemon that everybody reaches answers to this name.

    Names that anybody can register and point here are those with a dot: a page under such a name
    would be this daemon's own origin. Addresses and this machine's names are nobody else's.
    """
    if _address(host) is not None or "." not in host.strip(".") or name_allowed(host):
        return True
    lowered = host.lower().rstrip(".")
    return lowered == _own_name() or any(_matches(lowered, pattern) for pattern in trusted)


def is_loopback(host: str) -> bool:
    """Whether a daemon bound to this host is reached from this machine only."""
    address = _address(host)
    return address.is_loopback if address is not None else host.lower() == "localhost"


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


@cache
def _own_name() -> str:
    """With its domain, where the system knows one."""
    return socket.getfqdn().lower()


@cache
def _own_addresses() -> frozenset[str]:
    return frozenset(
        address.address.partition("%")[0]
        for addresses in psutil.net_if_addrs().values()
        for address in addresses
    )
