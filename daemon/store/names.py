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
_PATTERNS = (_HOST, _NAMESPACE, _MODEL, _MODEL)


@dataclass(frozen=True, slots=True, order=True)
class ModelName:
    """A valid, fully qualified name; case is kept, ``folds_to`` ignores it."""

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
        rest, tag, host, scheme = text, DEFAULT_TAG, DEFAULT_HOST, DEFAULT_SCHEME
        namespace = DEFAULT_NAMESPACE
        if rest.rfind(":") > rest.rfind("/"):
            rest, _, tag = rest.rpartition(":")
        rest, slash, model = rest.rpartition("/")
        if slash:
            rest, slash, namespace = rest.rpartition("/")
            if slash:
                before, mark, after = rest.partition("://")
                # An empty scheme or host in a scheme's company falls back to its default.
                scheme, host = (before or scheme, after or host) if mark else (scheme, before)
        return cls._checked((host, namespace, model, tag), scheme)

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

    def folds_to(self, other: ModelName) -> bool:
        """Whether the two names are one, case aside."""
        return [p.lower() for p in self.parts] == [p.lower() for p in other.parts]

    def __str__(self) -> str:
        return self.short
