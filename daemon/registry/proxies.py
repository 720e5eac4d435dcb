"""Which proxy a request goes through: ``HTTPS_PROXY``, ``HTTP_PROXY`` and ``NO_PROXY``, as in Go."""

from __future__ import annotations

import ipaddress

from yarl import URL

from lhama.daemon.config import Settings
from lhama.daemon.registry.reach import Zone, zone


def proxy_for(url: URL, settings: Settings) -> URL | None:
    """The proxy's URL; ``None`` for what is reached directly, this machine always."""
    proxy = settings.https_proxy if url.scheme == "https" else settings.http_proxy
    if not proxy or _is_here(url.host or "") or _is_excepted(url, settings.no_proxy):
        return None
    return URL(proxy if "://" in proxy else f"http://{proxy}")


def _is_here(host: str) -> bool:
    try:
        return host == "localhost" or zone(host) is Zone.LOOPBACK
    except ValueError:
        return False


def _is_excepted(url: URL, no_proxy: str) -> bool:
    """Whether a list of hosts, domains, addresses, networks, each perhaps with a port, has it."""
    host = (url.host or "").lower()
    for entry in filter(None, (part.strip().lower() for part in no_proxy.split(","))):
        if entry == "*" or _in_network(host, entry):
            return True
        name, _, port = entry.partition(":")
        if port and port != str(url.port):
            continue
        domain = name.lstrip("*.")
        if host.endswith("." + domain) or host == name:
            return True
    return False


def _in_network(host: str, network: str) -> bool:
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(network, strict=False)
    except ValueError:
        return False
