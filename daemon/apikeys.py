"""API keys: who may call. Ollama has none; without any, everybody may."""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import dataclass, field

_NAME = re.compile(r"[A-Za-z0-9_.@-]{1,64}")
_BEARER = "bearer "

MIN_LENGTH = 8
"""Characters of a key: less is a slip of the pen, not a key."""


@dataclass(frozen=True, slots=True)
class ApiKeys:
    """Names and keys. Only digests are kept, so that no key is shown by accident."""

    _digests: tuple[tuple[str, bytes], ...] = field(default=(), repr=False)

    @classmethod
    def parse(cls, text: str) -> ApiKeys:
        """Read ``name=key`` pairs or bare keys, separated by commas or space.

        Bare keys are called ``key1``, ``key2`` … by their place. Raises ``ValueError``, whose
        text holds no key.
        """
        digests: dict[str, bytes] = {}
        for place, entry in enumerate(text.replace(",", " ").split(), start=1):
            name, equals, key = entry.partition("=")
            if not equals or not key.strip("="):  # a bare key may end like base64
                name, key = f"key{place}", entry
            if _NAME.fullmatch(name) is None:
                raise ValueError(f"entry {place}: a name holds letters, digits and _.@- only")
            if len(key) < MIN_LENGTH:
                raise ValueError(f"entry {place}: a key has {MIN_LENGTH} characters at least")
            if name in digests:
                raise ValueError(f"entry {place}: the name {name!r} is there already")
            digests[name] = _digest(key)
        return cls(tuple(digests.items()))

    def __bool__(self) -> bool:
        return bool(self._digests)

    def caller(self, authorization: str, x_api_key: str = "") -> str | None:
        """The name of the key in these headers; ``None`` where it is none of ours.

        Takes the same time whichever key it is, or is not.
        """
        bearer = authorization[: len(_BEARER)].lower() == _BEARER
        given = _digest(authorization[len(_BEARER) :].strip() if bearer else x_api_key.strip())
        found = None
        for name, digest in self._digests:
            if hmac.compare_digest(digest, given):
                found = name
        return found


NO_KEYS = ApiKeys()
"""Everybody may call."""


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
