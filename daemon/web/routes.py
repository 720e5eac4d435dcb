"""Which handler answers a method and path, and what answers where there is none.

aiohttp's dispatcher is bypassed by one catch-all route, because clients see Ollama's own answers:
``404 page not found`` and ``405 method not allowed`` as plain text, redirects of trailing and
double slashes, paths in their exact case.
"""

from __future__ import annotations

import posixpath
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from aiohttp import web

from lhama.daemon.web.dialects import NATIVE, Dialect

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

METHODS = ("HEAD", "GET", "POST", "DELETE", "PUT", "PATCH", "OPTIONS")
"""In the order in which ``Allow`` names them."""


class Route(NamedTuple):
    handler: Handler
    dialect: Dialect
    path: str
    """As it was registered."""


@dataclass(frozen=True, slots=True)
class Match:
    """What the table knows about a request. A route, other methods or a redirect; none: 404."""

    route: Route | None = None
    allow: str = ""
    """Other methods that the path answers: 405."""
    redirect: str = ""
    status: int = 404


@dataclass(slots=True)
class Table:
    """Methods and handlers by path. A path ending in ``/:name`` takes any last part."""

    _exact: dict[str, dict[str, Route]] = field(default_factory=dict)
    _open: dict[str, dict[str, Route]] = field(default_factory=dict)

    def add(self, methods: str, path: str, handler: Handler, dialect: Dialect = NATIVE) -> None:
        """Register a handler for methods separated by spaces."""
        prefix, _, parameter = path.partition(":")
        table = self._open.setdefault(prefix, {}) if parameter else self._exact.setdefault(path, {})
        table.update(dict.fromkeys(methods.split(), Route(handler, dialect, path)))

    def match(self, method: str, path: str) -> Match:
        clean = clean_path(path)
        if clean != path:
            return Match(redirect=clean, status=307)
        found = self._find(path)
        if found is None:
            if path != "/" and path.endswith("/"):
                bare = self._find(path[:-1])
                if bare is not None and method in bare:
                    return Match(redirect=path[:-1], status=301 if method == "GET" else 307)
            return Match()
        allow = ", ".join(m for m in METHODS if m in found)
        if method in found:
            return Match(found[method], allow, status=200)
        return Match(allow=allow, status=405)

    def _find(self, path: str) -> dict[str, Route] | None:
        exact = self._exact.get(path)
        if exact is not None:
            return exact
        prefix, _, last = path.rpartition("/")
        return self._open.get(prefix + "/") if last else None


def clean_path(path: str) -> str:
    """The path without double slashes, ``.`` and ``..``; a trailing slash stays."""
    clean = posixpath.normpath("/" + path.lstrip("/"))
    return clean + "/" if path.endswith("/") and clean != "/" else clean
