"""``remote_host`` of a create request: a model that is no more than an address."""

from __future__ import annotations

import posixpath
from typing import Final
from urllib.parse import urlsplit, urlunsplit

from lhama.daemon.errors import BadRequest

CLOUD: Final = "https://ollama.com:443"
"""Where models with a cloud suffix are."""

_PORT: Final = "11434"


def address(text: str) -> str:
    """A full URL of what was given. Raises ``BadRequest``."""
    if text.startswith("/"):
        return f"http://localhost:{_PORT}{posixpath.normpath(text)}"
    if "://" not in text:
        text = f"http://{text}"
    if text == "http://ollama.com":
        return CLOUD
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise BadRequest("bad remote") from None
    if any(character.isspace() or not character.isprintable() for character in text):
        raise BadRequest("bad remote")
    host = parts.netloc or "localhost"
    if port is None:
        host = f"{host.removesuffix(':')}:{_PORT}"
    path = posixpath.normpath(parts.path) if parts.path else ""
    return urlunsplit((parts.scheme, host, "" if path == "/" else path, parts.query, ""))
