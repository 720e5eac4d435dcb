"""Ids of answers and their parts, in the forms that clients of each protocol know."""

from __future__ import annotations

import secrets


def numbered(prefix: str) -> str:
    """``chatcmpl-123456789``, ``resp_123456789``: Ollama's form, in numbers that do not repeat."""
    return f"{prefix}{secrets.randbelow(10**12)}"


def hexadecimal(prefix: str) -> str:
    """``msg_0123456789abcdef01234567``."""
    return f"{prefix}_{secrets.token_hex(12)}"
