"""``lhama pull`` and ``lhama push``: what they send and show, also of a recorded Ollama's lines."""

from __future__ import annotations

import io
import json
import re
from typing import Any

import pytest
from lhama_testing_golden import recordings
from lhama_testing_replay import Lhama, Replay, Reply, ndjson
from rich.console import Console

from lhama.daemon.cli.board import Board
from lhama.daemon.cli.transferring import _Live

DIGEST = "sha256:" + "ab" * 32
BLOB = {"status": "pulling abababababab", "digest": DIGEST, "total": 98_362_432}
PULLED: list[dict[str, Any]] = [
    {"status": "pulling manifest"},
    BLOB,
    {**BLOB, "completed": 49_181_216},
    {**BLOB, "completed": 98_362_432},
    {"status": "verifying sha256 digest"},
    {"status": "success"},
]


def test_pull_shows_every_step_once(server: Replay, lhama: Lhama) -> None:
    server.on("POST /api/pull", ndjson(*PULLED))
    outcome = lhama("pull", "tiny", "--insecure")
    assert outcome.code == 0
    assert outcome.out == ""
    assert outcome.err.splitlines() == [
        "pulling manifest",
        "pulling abababababab (98 MB)",
        "verifying sha256 digest",
        "success",
    ]
    (seen,) = server.seen
    assert seen.json == {"model": "tiny", "name": "tiny", "insecure": True, "stream": True}


@pytest.mark.parametrize("name", ["pull_ok_stream", "pull_ok_again", "push_ok"])
def test_a_recorded_servers_lines(server: Replay, lhama: Lhama, name: str) -> None:
    found = [p.values[0] for p in recordings("pull", "push") if p.id == name]
    if not found:
        pytest.skip("no recordings beside this checkout")
    verb = name.split("_")[0]
    server.on(f"POST /api/{verb}", Reply(lines=found[0].reply.encode().splitlines(keepends=True)))
    outcome = lhama(verb, "host/a/b")
    assert outcome.code == 0
    assert outcome.err.splitlines()[-1] == "success"


def test_an_error_within_the_stream_fails(server: Replay, lhama: Lhama) -> None:
    error = {"error": "pull model manifest: file does not exist"}
    server.on("POST /api/pull", ndjson(PULLED[0], error))
    outcome = lhama("pull", "nope")
    assert outcome.code == 1
    assert outcome.err.endswith("Error: pull model manifest: file does not exist")


def test_a_pull_that_breaks_off_fails(server: Replay, lhama: Lhama) -> None:
    server.on("POST /api/pull", ndjson(*PULLED[:3], cut=True))
    assert "lost the server" in lhama("pull", "tiny").err


@pytest.mark.parametrize(
    ("model", "place"),
    [
        ("me/mine", "https://ollama.com/me/mine"),
        ("me/mine:q4", "https://ollama.com/me/mine:q4"),
        ("my.host:5000/a/b", "my.host:5000/a/b:latest"),
    ],
)
def test_push_says_where_the_model_is(server: Replay, lhama: Lhama, model: str, place: str) -> None:
    server.on("POST /api/push", ndjson({"status": "retrieving manifest"}, {"status": "success"}))
    assert lhama("push", model).out == f"\nYou can find your model at:\n\n\t{place}\n\n"


def test_a_push_without_rights_says_what_to_do(server: Replay, lhama: Lhama) -> None:
    server.on("POST /api/push", ndjson({"error": "unauthorized: access denied"}))
    assert "create the model under a namespace you own" in lhama("push", "library/x").err


def test_run_pulls_what_is_not_there(server: Replay, lhama: Lhama) -> None:
    missing = Reply(404, [json.dumps({"error": "model 'tiny:latest' not found"}).encode()])
    shown = iter([missing, ndjson({"capabilities": ["completion"]})])
    server.on("POST /api/show", lambda seen: next(shown))
    server.on("POST /api/pull", ndjson(*PULLED))
    server.on("POST /api/generate", ndjson({"response": "Hi"}, {"response": "", "done": True}))
    outcome = lhama("run", "tiny", "Hello")
    assert outcome.out == "Hi\n"
    assert [seen.path.rpartition("/")[2] for seen in server.seen] == [
        "show",
        "pull",
        "show",
        "generate",
    ]


def test_a_terminal_shows_steps_and_bars_in_their_order() -> None:
    out = io.StringIO()
    with Board(Console(file=out, force_terminal=True, width=100)) as board:
        display = _Live(board)
        for update in PULLED:
            if "digest" in update:
                display.blob(update)
            else:
                display.step(update["status"])
        board.end_step()
        board.refresh()
        out.truncate(0)
    lines = [line.strip() for line in _plain(out.getvalue()).splitlines() if line.strip()]
    assert lines[0] == "pulling manifest"
    assert lines[1].startswith("pulling abababababab: 100%")
    assert "98.4/98.4 MB" in lines[1]
    assert lines[2:4] == ["verifying sha256 digest", "success"]


def _plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\r|\0", "", text)
