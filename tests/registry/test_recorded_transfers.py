"""The recorded exchanges of pull, push and their neighbours, against a registry like theirs."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from lhama_testing_golden import FOLDER, Recording, all_recordings
from lhama_testing_http import Reply, Server, create_reference, serving
from lhama_testing_registry import Registry

from lhama.plugins import gguf

RECORDED_REGISTRY = "127.0.0.1:11599"
RECORDED_STORE = "/models/"
NAMES = (
    *("create_from_missing_http", "create_from_missing_loopback"),
    *("tags_after_pull", "delete_pulled"),
)
"""Beside the groups pull and push: what shows the effect of a pull."""


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    async with serving(tmp_path / "models", identity=tmp_path / "id_ed25519") as server:
        yield server


@pytest.fixture
async def mute_registry() -> AsyncIterator[str]:
    """Where a TLS client is answered like the recorded ones were: without a status line."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(b"<!DOCTYPE HTML>\n<html>Bad request version</html>")
        await writer.drain()
        writer.close()

    listening = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with listening:
        yield f"127.0.0.1:{listening.sockets[0].getsockname()[1]}"


@pytest.mark.skipif(not FOLDER.is_dir(), reason=f"no recordings in {FOLDER}")
async def test_recorded(
    server: Server, registry: Registry, mute_registry: str, tmp_path: Path
) -> None:
    _fill(registry, tmp_path)
    create = functools.partial(create_reference, server, tmp_path)
    texts = {"template": "{{ .Prompt }}", "parameters": {"seed": 1}}
    await create(f"{registry.host}/library/pushed", **texts)
    wrong = []
    for recording in all_recordings():
        if recording.group not in ("pull", "push") and recording.name not in NAMES:
            continue
        speaks_tls = "TLS handshake" in recording.reply
        host = mute_registry if speaks_tls else registry.host
        if recording.name.startswith("push") and speaks_tls:
            await create(f"{host}/library/pushed", **texts)
        body = recording.body.replace(RECORDED_REGISTRY.encode(), host.encode())
        reply = await server.send(recording.method, recording.path, body)
        store = f"{server.settings.models}/"
        text = reply.body.decode().replace(host, RECORDED_REGISTRY).replace(store, RECORDED_STORE)
        if problem := _difference(recording, reply, text):
            wrong.append(f"{recording.name}: {problem}")
    assert not wrong, "\n".join(wrong)


def _fill(registry: Registry, folder: Path) -> None:
    """The models of the recorded registry."""
    metadata = {
        "general.architecture": "llama",
        "llama.block_count": 1,
        "llama.context_length": 128,
        "llama.embedding_length": 32,
        "general.file_type": 0,
    }
    path = folder / "tiny.gguf"
    gguf.write(path, metadata, {"token_embd.weight": ((1_500_000,), "F32", bytes(6_000_000))})
    details = {"model_family": "llama", "model_families": ["llama"], "model_type": "1.5M"}
    texts = {"template": "{{ .Prompt }}", "license": "TEST LICENSE"}
    tiny = registry.add_model("library/tiny", path.read_bytes(), details=details, **texts)
    corrupt = [{**tiny["layers"][0], **registry.add_blob(b"right")}, *tiny["layers"][1:]]
    registry.add_manifest("library/corrupt", corrupt, tiny["config"])
    registry.blobs[corrupt[0]["digest"]] = b"wrong"


def _difference(recording: Recording, reply: Reply, text: str) -> str:
    recorded = Reply(recording.status, recording.reply_headers, b"")
    if recording.status != reply.status:
        return f"status {recording.status} became {reply.status}: {text[:300]}"
    if recorded.header("content-type") != reply.header("content-type"):
        return f"content type {reply.header('content-type')}"
    if recording.name == "tags_after_pull":
        pulled = [m for m in json.loads(text)["models"] if m["name"].endswith("tiny:latest")]
        text = json.dumps({"models": pulled})
        first = json.loads(recording.reply)["models"][:1]
        return _compared(json.dumps({"models": first}), text)
    return _compared(recording.reply, text)


def _compared(recorded: str, text: str) -> str:
    ours, theirs = _folded(text), _folded(recorded)
    return "" if ours == theirs else f"\n  recorded {theirs}\n  became   {ours}"


def _folded(text: str) -> list[Any]:
    """The lines without what cannot be equal; neighbours that are then the same count once."""
    lines: list[Any] = []
    for line in filter(None, text.split("\n")):
        value = line
        with contextlib.suppress(ValueError):
            value = json.loads(line)
        if isinstance(value, dict) and "digest" in value and "status" in value:
            # A fresh blob may come between two ticks: with or without a line in its middle.
            value = {**value, "total": 0, "completed": 0}
        plain = re.sub(r"(sha256[:-])?[0-9a-f]{64}", "<digest>", json.dumps(value))
        plain = re.sub(r"(pulling|pushing) [0-9a-f]{12}", r"\1 <short>", plain)
        plain = re.sub(r'("(size|modified_at)": )("[^"]*"|\d+)', r"\1<some>", plain)
        if not lines or lines[-1] != plain:
            lines.append(plain)
    return lines
