"""Recorded exchanges that need no real model, replayed against the real application."""

from __future__ import annotations

import json
import re

import pytest
from lhama_testing_golden import FOLDER, Recording, all_recordings
from lhama_testing_http import Create, Reply, Server

GROUPS = ("general", "host", "cors", "bad", "blob", "copy delete", "pull", "v1", "anthropic")
"""Each on a server of its own."""
COMPARED = ("content-type", "allow", "location", "vary")
RECORDED_HOST = "127.0.0.1:11500"

NOT_HERE = {
    "delete_loaded",  # of a model that other recordings would have made
    "delete_pulled",
    "blob_post_intermediate",  # of a blob that other recordings would have uploaded
    "blob_head_intermediate",
    "anthropic_count_tokens",  # on purpose: Ollama does not have it
}
_REQUEST_ID = re.compile(rb"req_[0-9a-f]{24}")


def _wanted(recording: Recording) -> bool:
    if recording.group == "pull" and recording.status != 400:
        return False  # a registry would be needed
    return recording.name not in NOT_HERE


@pytest.mark.skipif(not FOLDER.is_dir(), reason=f"no recordings in {FOLDER}")
@pytest.mark.parametrize("group", GROUPS)
async def test_recorded_exchanges(group: str, server: Server, create: Create) -> None:
    await create("smollm2:135m")
    wrong = []
    for recording in filter(_wanted, all_recordings()):
        if recording.group not in group.split():
            continue
        reply = await _replay(server, recording)
        if problem := _difference(recording, reply):
            wrong.append(f"{recording.name}: {problem}")
    assert not wrong, "\n".join(wrong)


async def _replay(server: Server, recording: Recording) -> Reply:
    here = server.settings.address
    headers = {k: v.replace(RECORDED_HOST, here) for k, v in recording.headers.items()}
    sent = {k: v for k, v in headers.items() if k.lower() not in ("content-length", "connection")}
    return await server.send(recording.method, recording.path, recording.body, sent)


def _difference(recording: Recording, reply: Reply) -> str:
    """What differs in a way that a client could notice, the contents of models aside."""
    if recording.status != reply.status:
        return f"status {recording.status} became {reply.status}: {reply.body[:200]!r}"
    recorded = Reply(recording.status, recording.reply_headers, recording.reply.encode())
    names = {k.lower() for k, _ in (*recorded.headers, *reply.headers)}
    for name in {*COMPARED, *(n for n in names if n.startswith("access-control-"))}:
        if recorded.header(name) != reply.header(name):
            return f"{name}: {recorded.header(name)!r} became {reply.header(name)!r}"
    if recording.status >= 300 or "text/plain" in (reply.header("content-type") or ""):
        want, got = (_REQUEST_ID.sub(b"req_", body) for body in (recorded.body, reply.body))
        return "" if want == got else f"{want!r} became {got!r}"
    if reply.header("content-type") == "text/event-stream":
        want_events, got_events = _events(recorded.body), _events(reply.body)
        return "" if want_events == got_events else f"{want_events} became {got_events}"
    if "version" not in recording.reply and recording.reply.startswith("{"):
        keys, found = list(json.loads(recording.reply)), list(reply.json())
        missing = [key for key in keys if key not in found and key != "tensors"]
        return f"without {missing}" if missing else ""
    return ""


def _events(body: bytes) -> list[tuple[str, ...]]:
    """Names and keys of a stream's events; of neighbours that are alike, one."""
    found: list[tuple[str, ...]] = []
    for event in body.decode().strip().split("\n\n"):
        name, _, data = event.rpartition("data: ")
        keys = _keys(json.loads(data)) if data.startswith("{") else [data]
        if (shape := (name.strip(), *keys)) not in found[-1:]:
            found.append(shape)
    return found


def _keys(value: object) -> list[str]:
    """The keys of an object and of what is in it, in their order."""
    if isinstance(value, list):
        return [key for item in value for key in _keys(item)]
    if not isinstance(value, dict):
        return []
    return [key for name, item in value.items() for key in (name, *_keys(item))]
