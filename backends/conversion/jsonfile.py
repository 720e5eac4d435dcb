"""JSON files of a checkpoint: small, whole, one object each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from lhama.plugins.backend import UnsupportedModel

_MOST_BYTES: Final = 1 << 28
"""The largest tokenizers of today take about 35 MB."""


def read(path: Path) -> dict[str, Any]:
    """Raises ``UnsupportedModel`` for what is no JSON object, and for a missing file."""
    return decode(_bytes(path), path.name)


def read_list(path: Path) -> list[dict[str, Any]]:
    """As ``read``, for a file that holds a list of objects."""
    items = _decode(_bytes(path), path.name)
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise UnsupportedModel(f"{path.name} is no list of JSON objects")
    return items


def read_optional(path: Path) -> dict[str, Any]:
    """As ``read``; without the file, an empty object."""
    return read(path) if path.is_file() else {}


def decode(data: bytes, name: str) -> dict[str, Any]:
    """Bytes that must hold one object; ``name`` is the file's, for errors."""
    value = _decode(data, name)
    if not isinstance(value, dict):
        raise UnsupportedModel(f"{name} is no JSON object")
    return value


def _bytes(path: Path) -> bytes:
    if not path.is_file():
        raise UnsupportedModel(f"open {path.name}: no such file or directory")  # as Ollama has it
    if path.stat().st_size > _MOST_BYTES:
        raise UnsupportedModel(f"{path.name} is larger than {_MOST_BYTES} bytes")
    return path.read_bytes()


def _decode(data: bytes, name: str) -> Any:
    try:
        return json.loads(data)  # takes NaN and Infinity too: some configs have them
    except (ValueError, RecursionError) as error:
        raise UnsupportedModel(f"{name} is not valid JSON: {error}") from None
