"""The recordings of the embed routes, replayed against a daemon with the recorded models."""

from __future__ import annotations

import base64
import json
import math
import urllib.error
import urllib.request
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lhama_testing_daemon import Daemon, running
from lhama_testing_golden import Recording, recordings
from lhama_testing_models import changed_copy

GROUPS = ("embed", "embeddings", "embedmodel")


@pytest.fixture(scope="module")
def daemon(
    tmp_path_factory: pytest.TempPathFactory, smollm2: Path, gemma3: Path
) -> Iterator[Daemon]:
    folder = tmp_path_factory.mktemp("recorded")
    embsmol = folder / "embsmol.gguf"
    changed_copy(smollm2, embsmol, {"llama.pooling_type": 1})
    with running(folder / "models", LHAMA_BACKEND="llamacpp") as daemon:
        daemon.create("smollm2:135m", smollm2)
        daemon.create("gemma3:270m", gemma3)
        daemon.create("embsmol", embsmol)
        yield daemon


@pytest.mark.parametrize("recording", recordings(*GROUPS))
def test_recorded(daemon: Daemon, recording: Recording) -> None:
    body = recording.body or None
    request = urllib.request.Request(daemon.url + recording.path, body, method=recording.method)
    try:
        with urllib.request.urlopen(request, timeout=60) as reply:
            status, text = reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        status, text = error.code, error.read().decode()
    assert status == recording.status, text
    if status != 200:
        assert text == recording.reply
        return
    found, expected = json.loads(text), json.loads(recording.reply)
    if recording.path == "/api/tags":
        found, expected = _embsmol(found), _embsmol(expected)
        assert found == expected
        return
    assert list(found) == list(expected)
    assert found.get("model") == expected.get("model")
    for counted in ("prompt_eval_count", "usage"):
        assert found.get(counted) == expected.get(counted)
    for mine, theirs in zip(_vectors(found), _vectors(expected), strict=True):
        # One build of llama.cpp rounds 8-bit activations otherwise than another.
        assert len(mine) == len(theirs)
        assert not mine or sum(x * y for x, y in zip(mine, theirs, strict=True)) > 0.999


def _vectors(reply: dict[str, Any]) -> list[list[float]]:
    if "embedding" in reply:
        return [reply["embedding"]]
    if "data" in reply:
        return [_numbers(entry["embedding"]) for entry in reply["data"]]
    vectors: list[list[float]] = reply["embeddings"]
    assert all(math.isclose(sum(x * x for x in v), 1, rel_tol=1e-5) for v in vectors)
    return vectors


def _numbers(embedding: list[float] | str) -> list[float]:
    if isinstance(embedding, list):
        return embedding
    return array("f", base64.b64decode(embedding)).tolist()


def _embsmol(tags: dict[str, Any]) -> dict[str, Any]:
    [model] = [m for m in tags["models"] if m["name"] == "embsmol:latest"]
    return {k: v for k, v in model.items() if k not in ("modified_at", "size", "digest")}
