"""The recorded exchanges against a running daemon, judged by the tool that comes with them."""

from __future__ import annotations

import contextlib
import importlib.machinery
import importlib.util
import json
import socket
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

SHARED = Path(__file__).resolve().parents[2] / "shared"
TOOL = SHARED / "tools" / "wire-compare"

NATIVE = (
    *("bad", "blob", "chat", "copy", "cors", "create", "delete", "embed", "embeddings", "general"),
    *("generate", "host", "show", "suffix", "think", "tools", "unload"),
)
"""All of the native API's groups that need no other settings, timing, registry or third model."""

OTHERS = ("v1", "anthropic")
"""The groups of the other two protocols."""

REPORTED_VERSION = "0.0.0"
"""The recorded server was built without a version."""

REGISTRY_PORT = 11599
"""Where the recorded server found a registry that speaks plain HTTP."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One exchange, replayed."""

    name: str
    group: str
    verdict: str
    why: str
    request: dict[str, Any]
    recorded: str
    here: str

    @property
    def body(self) -> dict[str, Any]:
        return dict(json.loads(self.request["body"] or "{}"))


@cache
def tool() -> ModuleType:
    """``wire-compare`` as a module."""
    loader = importlib.machinery.SourceFileLoader("wire_compare", str(TOOL))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


def replay(
    url: str, groups: Sequence[str], leave_out: frozenset[str] = frozenset()
) -> list[Outcome]:
    """The recordings of some groups, in the order in which they were made."""
    compare = tool()
    exchanges = [json.loads(file.read_text()) for file in (SHARED / "golden").glob("*.json")]
    outcomes = []
    for exchange in sorted(exchanges, key=lambda e: int(e["seq"])):
        name, request, recorded = exchange["name"], exchange["request"], exchange["response"]
        group = name.split("_")[0]
        if group not in groups or name in leave_out:
            continue
        reply = compare.send(url, request, 60)
        verdict, why = compare.judge(recorded, reply)
        bodies = recorded.get("body") or "", reply[2]
        outcomes.append(Outcome(name, group, verdict, why, request, *bodies))
    return outcomes


def shares(outcomes: Sequence[Outcome]) -> tuple[float, float, float]:
    """Percentages of equal statuses, equal shapes and equal bodies, as the tool counts them."""
    found = Counter(outcome.verdict for outcome in outcomes)
    count = len(outcomes)
    status = count - found["dead"] - found["status"]
    return tuple(100 * n / count for n in (status, found["text"] + found["same"], found["same"]))  # type: ignore[return-value]


@contextlib.contextmanager
def plain_registry() -> Iterator[None]:
    """A listener where the recordings had a registry: it knows no TLS, and answers what is no HTTP
    without a status line. Nothing, if the port is taken."""
    try:
        listener = socket.create_server(("127.0.0.1", REGISTRY_PORT))
    except OSError:
        yield
        return

    def answer() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection:
                    connection.settimeout(5)
                    connection.recv(4096)
                    connection.sendall(b"<!DOCTYPE HTML><h1>Error response</h1>")

    thread = threading.Thread(target=answer, daemon=True)
    thread.start()
    try:
        yield
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)
