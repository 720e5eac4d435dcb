"""Pictures named in prompts: which texts are paths, and what is sent."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from lhama_testing_replay import Lhama, Replay, ndjson

from lhama.daemon.cli import media
from lhama.daemon.cli.chat import Chat
from lhama.daemon.cli.client import Client
from lhama.daemon.cli.running import RunOptions
from lhama.daemon.errors import BadRequest

SEES = {"capabilities": ["completion", "vision"]}
FINAL = {"response": "a fox", "done": True}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where pictures are, and where the paths begin."""
    for name in ("a.png", "two words.JPG", "it's (1).webp", "sound.wav"):
        (tmp_path / name).write_bytes(name.encode())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def named(text: str) -> tuple[str, list[str]]:
    rest, found = media.extract(text)
    return rest, [base64.b64decode(one).decode() for one in found]


@pytest.mark.parametrize(
    ("text", "rest", "found"),
    [
        ("What is ./a.png?", "What is ?", ["a.png"]),
        ("{folder}/a.png", "", ["a.png"]),
        ("~/a.png and/or ./sound.wav", "and/or", ["a.png", "sound.wav"]),
        (r"./two\ words.JPG what is it", "what is it", ["two words.JPG"]),
        (r"./it\'s\ \(1\).webp", "", ["it's (1).webp"]),
        ("what is '{folder}/two words.JPG'?", "what is ?", ["two words.JPG"]),
        ('compare "./a.png" with ./a.png', "compare  with", ["a.png", "a.png"]),
        ("./gone.png and a.png and x/a.png", "./gone.png and a.png and x/a.png", []),
        ("see https://example.com/a.png", "see https://example.com/a.png", []),
        ("./a.pngs ./a.png/b", "./a.pngs ./a.png/b", []),
        ("  nothing here\n", "  nothing here\n", []),
    ],
)
def test_paths_in_texts(folder: Path, text: str, rest: str, found: list[str]) -> None:
    assert named(text.replace("{folder}", str(folder))) == (rest, found)


def test_a_picture_that_cannot_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(BadRequest, match="cannot read a.png: Permission denied"):
        media.extract("./a.png")


def test_run_shows_a_model_that_sees_what_the_prompt_names(server: Replay, lhama: Lhama) -> None:
    server.on("POST /api/show", ndjson(SEES))
    server.on("POST /api/generate", ndjson(FINAL))
    outcome = lhama("run", "m", "what is", "./a.png")
    assert (outcome.out, outcome.err) == ("a fox\n", "Added image 'a.png'\n")
    server.on("POST /api/show", ndjson({}))
    lhama("run", "m", "what is", "./a.png")
    seen, blind = [sent.json for sent in server.requests("POST /api/generate")]
    assert seen["prompt"] == "what is"
    assert base64.b64decode(seen["images"][0]) == b"a.png"
    assert (blind["prompt"], blind.get("images")) == ("what is ./a.png", None)


def test_a_message_may_begin_with_a_picture(server: Replay, folder: Path) -> None:
    server.on("POST /api/generate", ndjson({"done": True}))
    server.on("POST /api/chat", ndjson({"message": {"content": "a fox"}, "done": True}))
    lines = iter([f"{folder}/a.png what is it", "and now?", "/bye"])
    Chat(Client(server.url), "m", RunOptions(), SEES).converse(lambda _: next(lines))
    first, second = [sent.json["messages"] for sent in server.requests("POST /api/chat")]
    assert first[0]["content"] == "what is it"
    assert base64.b64decode(first[0]["images"][0]) == b"a.png"
    assert second[0] == first[0]
    assert "images" not in second[2]
