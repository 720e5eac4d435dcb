"""A Go template and stop strings for a GGUF that brings a Jinja template, found at ``create``.

Ollama compares with stored Jinja texts and takes the nearest within 100 edits. Here a text is
known by its format's own marks, so a small change of wording loses nothing. As there, templates
that do more than plain turns (tools, thinking) get none: they are rendered by themselves.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from lhama.daemon.prompt import capabilities
from lhama.daemon.prompt.formats import FORMATS

MAX_PLAIN_CHARS = 4000
"""Longer texts do more than plain turns."""


@dataclass(frozen=True, slots=True)
class Detected:
    """``name`` for the status line ``using autodetected template NAME``, and two layers."""

    name: str
    template: str
    parameters: dict[str, Any] = field(default_factory=dict)


def detect(jinja: str) -> Detected | None:
    """The chat format of the Jinja text; ``None`` for none, an unknown or a richer one."""
    if not jinja or len(jinja) > MAX_PLAIN_CHARS or capabilities.of_jinja(jinja):
        return None
    for known in FORMATS:
        present = all(mark in jinja for mark in known.marks)
        if present and not any(mark in jinja for mark in known.not_):
            return Detected(known.name, known.template, {"stop": list(known.stop)})
    return None
