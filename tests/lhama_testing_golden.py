"""Recorded exchanges of a real Ollama server, where the checkout has them beside it."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "shared" / "golden"


@dataclass(frozen=True)
class Recording:
    name: str
    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    status: int
    reply_headers: tuple[tuple[str, str], ...]
    reply: str

    @property
    def group(self) -> str:
        return self.name.split("_")[0]


def recordings(*groups: str, where: Callable[[Recording], bool] | None = None) -> list[Any]:
    """The recordings of some groups as pytest parameters; one skipped parameter without them."""
    found = [r for r in all_recordings() if r.group in groups and (where is None or where(r))]
    if not found:
        reason = f"no recordings in {FOLDER}"
        return [pytest.param(None, id="none", marks=pytest.mark.skip(reason=reason))]
    return [pytest.param(r, id=r.name) for r in found]


@cache
def all_recordings() -> tuple[Recording, ...]:
    """Every recording, in the order in which they were made."""
    exchanges = [json.loads(file.read_text()) for file in FOLDER.glob("*.json")]
    return tuple(_read(e) for e in sorted(exchanges, key=lambda e: int(e["seq"])))


def _read(exchange: dict[str, Any]) -> Recording:
    request, response = exchange["request"], exchange["response"]
    body = base64.b64decode(request.get("body_b64") or "")
    return Recording(
        name=exchange["name"],
        method=request["method"],
        path=request["path"],
        headers=dict(request["headers"]),
        body=body or (request.get("body") or "").encode(),
        status=response["status"],
        reply_headers=tuple((k, v) for k, v in response["headers"]),
        reply=response.get("body") or "",
    )
