"""Base64 as Go's ``encoding/base64`` reads it, down to the place it names in errors."""

from __future__ import annotations

import base64
import binascii


def decode(text: str) -> bytes:
    """The bytes of a text in standard base64; line ends do not matter. Raises ``ValueError``."""
    encoded = text.encode("utf-8", "replace")
    try:
        return binascii.a2b_base64(encoded.translate(None, b"\r\n"), strict_mode=True)
    except ValueError:
        place = _corrupt(encoded)
        raise ValueError(f"illegal base64 data at input byte {place}") from None


def _corrupt(text: bytes) -> int:
    """Index of the byte at which Go's base64 decoder gives up."""
    alphabet = frozenset(base64.b64encode(bytes(range(256))) + b"ABCDEFGHIJKLMNOPQRSTUVWXYZ+/")
    alphabet = (alphabet | frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789")) - {ord("=")}
    filled = 0  # characters of the current group of four
    for at, char in enumerate(text):
        if char in b"\r\n":
            continue
        if char in alphabet:
            filled = (filled + 1) % 4
            continue
        if char != ord("=") or filled < 2:
            return at
        rest = [i for i in range(at + 1, len(text)) if text[i] not in b"\r\n"]
        if filled == 3:
            return rest[0] if rest else at
        if not rest:
            return len(text)
        if text[rest[0]] != ord("="):
            return rest[0] - 1
        return rest[1] if len(rest) > 1 else at
    return len(text) - filled
