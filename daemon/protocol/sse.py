"""Server-sent events: how the protocols beside Ollama's own stream."""

from __future__ import annotations

CONTENT_TYPE = "text/event-stream"
HEADERS = {"Cache-Control": "no-cache"}
"""Of streams of named events."""


def unnamed(data: bytes) -> bytes:
    """An event that has no name, only data."""
    return b"data: %b\n\n" % data


def event(name: str, data: bytes) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name.encode(), data)
