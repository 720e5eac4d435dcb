"""Server-sent events, taken apart."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from lhama.daemon.protocol.answer import Answer
from lhama.daemon.wire.messages import Delta


class Event(NamedTuple):
    name: str
    data: Any
    """Decoded; a text where it is no JSON."""


def events(stream: bytes) -> list[Event]:
    """Every event of a stream; fails for bytes that are none."""
    assert stream.endswith(b"\n\n") or not stream
    found = []
    for block in stream.decode().split("\n\n")[:-1]:
        *named, data = block.split("\n")
        assert data.startswith("data: ")
        text = data.removeprefix("data: ")
        name = named[0].removeprefix("event: ") if named else ""
        found.append(Event(name, json.loads(text) if text.startswith("{") else text))
    return found


def streamed(answer: Answer, *deltas: Delta) -> list[Event]:
    return events(b"".join(answer.lines([delta]) for delta in deltas))
