"""Several names over one model: the recorded groups tags and alias, in the order they were made."""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from lhama_testing_daemon import Daemon, running
from lhama_testing_golden import FOLDER, Recording, all_recordings

pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason=f"no recordings in {FOLDER}")

COPIES = ("copy_ok", "copy_ok_tag", "copy_case_variant_dest", "tags_after_copy")
ALIASES = (
    *("ps_before_delete_loaded", "delete_loaded", "ps_after_delete_loaded", "generate_deleted"),
    *("unload_deleted_model", "alias_generate", "alias_ps"),
)


@pytest.fixture(scope="module")
def daemon(
    tmp_path_factory: pytest.TempPathFactory, smollm2: Path, gemma3: Path
) -> Iterator[Daemon]:
    with running(tmp_path_factory.mktemp("names") / "models", LHAMA_BACKEND="llamacpp") as daemon:
        daemon.create("smollm2:135m", smollm2)
        daemon.create("gemma3:270m", gemma3)
        yield daemon


def recorded(name: str) -> Recording:
    return next(recording for recording in all_recordings() if recording.name == name)


def replay(daemon: Daemon, recording: Recording) -> tuple[int, Any]:
    request = urllib.request.Request(
        daemon.url + recording.path, recording.body or None, method=recording.method
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as reply:
            status, text = reply.status, reply.read()
    except urllib.error.HTTPError as error:
        status, text = error.code, error.read()
    return status, json.loads(text) if text else None


def normal(value: Any, key: str = "") -> Any:
    """Without times, sizes in memory, and what Ollama's rewriting of the file changes: its digest."""
    if isinstance(value, dict):
        return {k: normal(v, k) for k, v in value.items()}
    if isinstance(value, list):
        return [normal(item) for item in value]
    unequal = ("modified_at", "expires_at", "created_at", "digest", "size")
    return "" if key in unequal or key.endswith("_duration") else value


def test_tags(daemon: Daemon) -> None:
    _set_times(daemon, "tags_final")
    assert normal(replay(daemon, recorded("tags_final"))[1]) == normal(_reply("tags_final"))
    for name in COPIES:
        status, body = replay(daemon, recorded(name))
        assert status == recorded(name).status
    assert normal(body) == normal(_reply("tags_after_copy"))
    digests = {model["name"]: model["digest"] for model in body["models"]}
    assert digests["cp1:latest"] == digests["cp2:tag"] == digests["smollm2:135m"]
    for name in ("cp1", "cp2:tag"):
        daemon.call("/api/delete", {"model": name}, method="DELETE")


def test_aliases_share_a_runner_and_its_first_name(daemon: Daemon) -> None:
    for name in ("tmpdel", "alias1"):
        daemon.call("/api/copy", {"source": "smollm2:135m", "destination": name})
    daemon.call("/api/generate", {"model": "tmpdel", "stream": False})
    runners = daemon.runners()
    for name in ALIASES:
        recording = recorded(name)
        status, body = replay(daemon, recording)
        assert status == recording.status, name
        theirs = normal(_reply(name)) if recording.reply else None
        if name == "alias_generate":  # drawn at random: what depends on the draw is left out
            assert list(body) == list(theirs)
            assert body["context"][:-1] == theirs["context"][:-1]
            assert body["prompt_eval_count"] == theirs["prompt_eval_count"]
        else:
            assert normal(body) == theirs, name
    assert daemon.runners() == runners


def _reply(name: str) -> Any:
    return json.loads(recorded(name).reply)


def _set_times(daemon: Daemon, name: str) -> None:
    """Give manifests the times of a recorded list: they decide its order."""
    for model in _reply(name)["models"]:
        path = (
            daemon.store / "manifests/registry.ollama.ai/library" / model["name"].replace(":", "/")
        )
        moment = datetime.fromisoformat(model["modified_at"][:19] + "+00:00").timestamp()
        os.utime(path, (moment, moment))
