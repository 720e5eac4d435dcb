"""The digest of a blob: the only thing a blob's path is ever made of."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field

from lhama.daemon.errors import InvalidDigest

_PATTERN = re.compile(r"sha256[:-]([0-9a-fA-F]{64})")


@dataclass(frozen=True, slots=True)
class Digest:
    """A SHA-256 digest. Two spellings of one (colon or dash) are equal; upper case is not lower:
    no file has such a name, so nothing is found under it."""

    hex: str
    spelled: str = field(compare=False)
    """As the caller wrote it: error texts repeat it."""

    @classmethod
    def parse(cls, text: str) -> Digest:
        """``sha256:`` or ``sha256-`` and 64 hexadecimal digits. Raises ``InvalidDigest``."""
        match = _PATTERN.fullmatch(text)
        if match is None:
            raise InvalidDigest("invalid digest format")
        return cls(match.group(1), text)

    @classmethod
    def from_hex(cls, digits: str) -> Digest:
        return cls.parse(f"sha256:{digits}")

    @classmethod
    def of(cls, data: bytes) -> Digest:
        return cls.from_hex(hashlib.sha256(data).hexdigest())

    @property
    def filename(self) -> str:
        return f"sha256-{self.hex}"

    @property
    def short(self) -> str:
        """The first 12 digits, as progress lines show them."""
        return self.hex[:12]

    def __str__(self) -> str:
        return f"sha256:{self.hex}"
