"""Who used the daemon for what: counted by API key, shown by ``/metrics``."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from aiohttp import web

from lhama.daemon.wire.messages import Done

CALLER: web.RequestKey[str] = web.RequestKey("caller", str)
"""The name of the API key a request came with; absent without keys."""

GONE = 499
"""Counted as the status of a request whose client did not wait for the end, as Ollama logs it."""


@dataclass(slots=True)
class Usage:
    """Sums since the daemon started. A key's name is empty where there are no keys."""

    requests: Counter[tuple[str, str, int]] = field(default_factory=Counter)
    """By key, route and status; a path that is no route counts under an empty one."""
    tokens: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By key and kind: ``prompt`` or ``answer``. Answers that were not ended do not count."""

    def answered(self, request: web.Request, route: str, status: int) -> None:
        self.requests[request.get(CALLER, ""), route, status] += 1

    def spent(self, request: web.Request, done: Done) -> None:
        caller = request.get(CALLER, "")
        self.tokens[caller, "prompt"] += done.prompt_tokens
        self.tokens[caller, "answer"] += done.eval_tokens
