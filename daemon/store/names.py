"""Model names: ``[scheme://][host/][namespace/]model[:tag]``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lhama.daemon.errors import InvalidName

DEFAULT_HOST = "registry.ollama.ai"
DEFAULT_NAMESPACE = "library"
DEFAULT_TAG = "latest"
DEFAULT_SCHEME = "https"

# No part can be "." or "..", begin with a dot or hold a slash: a name is safe as a path.
_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,349}")
_NAMESPACE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,79}")
_MODEL = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}")
_MISSING = "!MISSING!"
"""Ollama's word; no part can be so."""
_PATTERNS = (_HOST, _NAMESPACE, _MODEL, _MODEL)


@dataclass(frozen=True, slots=True, order=True)
class ModelName:
    """A valid, fully qualified name; case is kept."""

    host: str
    namespace: str
    model: str
    tag: str
    scheme: str = field(default=DEFAULT_SCHEME, compare=False)

    @classmethod
    def parse(cls, text: str) -> ModelName:
        """Read a name as a user writes it, missing parts by their defaults.

        Raises ``InvalidName`` ("invalid model name"). A separator promises the part behind and
        before it: ``a:`` and ``/a`` are invalid, not shortened.
        """
        scheme, parts = _split(text)
        return cls._checked(parts, scheme)

    @classmethod
    def from_path(cls, relative: Path) -> ModelName:
        """The name of a manifest by its path below ``manifests``. Raises ``InvalidName``."""
        if len(relative.parts) != 4:
            raise InvalidName("invalid model name")
        return cls._checked(relative.parts, DEFAULT_SCHEME)

    @classmethod
    def _checked(cls, parts: Sequence[str], scheme: str) -> ModelName:
        for part, pattern in zip(parts, _PATTERNS, strict=True):
            if pattern.fullmatch(part) is None:
                raise InvalidName("invalid model name")
        host, namespace, model, tag = parts
        return cls(host, namespace, model, tag, scheme)

    @staticmethod
    def spelled_out(text: str) -> str:
        """All four parts of what may be no name at all, for errors that say so."""
        _, (host, namespace, model, tag) = _split(text)
        return f"{host}/{namespace}/{model}:{tag}"

    @property
    def parts(self) -> tuple[str, str, str, str]:
        return self.host, self.namespace, self.model, self.tag

    @property
    def path(self) -> Path:
        """Where its manifest lies below ``manifests``."""
        return Path(*self.parts)

    @property
    def short(self) -> str:
        """As short as it can be, the tag always shown: ``smollm2:135m``."""
        short = f"{self.model}:{self.tag}"
        if self.host.lower() != DEFAULT_HOST:
            return f"{self.host}/{self.namespace}/{short}"
        return short if self.namespace.lower() == DEFAULT_NAMESPACE else f"{self.namespace}/{short}"

    @property
    def full(self) -> str:
        """All four parts: ``registry.ollama.ai/library/smollm2:135m``."""
        return f"{self.host}/{self.namespace}/{self.model}:{self.tag}"

    def __str__(self) -> str:
        return self.short


def _split(text: str) -> tuple[str, tuple[str, str, str, str]]:
    """Scheme and the four parts, unchecked; a part that is promised and not there is ``_MISSING``."""
    scheme, host, namespace, tag = DEFAULT_SCHEME, DEFAULT_HOST, DEFAULT_NAMESPACE, DEFAULT_TAG
    if text.rfind(":") > text.rfind("/"):
        text, tag = _cut(text, ":")
    model = text
    if "/" in text:
        text, model = _cut(text, "/")
        namespace = text
        if "/" in text:
            text, namespace = _cut(text, "/")
            before, mark, after = text.partition("://")
            # An empty scheme or host in a scheme's company falls back to its default.
            scheme, host = (before or scheme, after or host) if mark else (scheme, before)
    return scheme, (host, namespace, model, tag)


def _cut(text: str, separator: str) -> tuple[str, str]:
    before, _, after = text.rpartition(separator)
    return before or _MISSING, after or _MISSING
