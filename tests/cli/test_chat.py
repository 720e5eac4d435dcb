"""Conversations: fed line by line, and once at a real terminal."""

from __future__ import annotations

import os
import pty
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest
from lhama_testing_replay import Replay, Reply, Seen, ndjson

from lhama.daemon.cli import answer, output
from lhama.daemon.cli.chat import Chat, read_message
from lhama.daemon.cli.client import Client
from lhama.daemon.cli.running import RunOptions

DETAILS: dict[str, Any] = {
    "system": "Be kind.",
    "parameters": "stop  x",
    "details": {"family": "llama", "parameter_size": "1B"},
}
FINAL = {"done": True, "eval_count": 3, "eval_duration": 1_500_000_000}


def echo(seen: Seen) -> Reply:
    """Answers with the last message in capitals, in two chunks."""
    text = seen.json["messages"][-1]["content"].upper()
    parts = [{"message": {"role": "assistant", "content": p}} for p in (text[:1], text[1:])]
    return ndjson(*parts, {"message": {"role": "assistant", "content": ""}, **FINAL})


def reading(*lines: str) -> Callable[[str], str]:
    left = list(lines)

    def read(prompt: str) -> str:
        if not left:
            raise EOFError
        line = left.pop(0)
        if line == "^C":
            raise KeyboardInterrupt
        return line

    return read


Talk = Callable[..., str]


@pytest.fixture
def talk(server: Replay, capsys: pytest.CaptureFixture[str]) -> Talk:
    """Feed lines to a conversation and return what was printed."""
    server.on("POST /api/show", ndjson(DETAILS))
    server.on("POST /api/generate", ndjson({"done": True, "done_reason": "load"}))
    server.on("POST /api/chat", echo)
    server.on("POST /api/create", ndjson({"status": "success"}))

    def talk(*lines: str, details: dict[str, Any] = DETAILS) -> str:
        Chat(Client(server.url), "m", RunOptions(), details).converse(reading(*lines))
        return capsys.readouterr().out

    return talk


def chats(server: Replay) -> list[Any]:
    return [seen.json for seen in server.requests("POST /api/chat")]


def test_messages_add_up(server: Replay, talk: Talk) -> None:
    assert talk("hi", "you", "/bye") == "HI\n\nYOU\n\n"
    first, second = chats(server)
    assert first == {
        "model": "m",
        "messages": [{"role": "user", "content": "hi"}],
        "options": {},
    }
    assert [m["content"] for m in second["messages"]] == ["hi", "HI", "you"]


def test_clear_forgets(server: Replay, talk: Talk) -> None:
    assert "Cleared session context" in talk("hi", "/clear", "you")
    assert len(chats(server)[-1]["messages"]) == 1


def test_settings_reach_the_request(server: Replay, talk: Talk) -> None:
    out = talk(
        "/set parameter top_k 7",
        "/set parameter stop a b",
        "/set system Be terse.",
        "/set format json",
        "/set think high",
        "/set verbose",
        "hi",
        "/set noformat",
        "/set nothink",
        "/set quiet",
        "you",
    )
    first, second = chats(server)
    assert first["options"] == {"top_k": 7, "stop": ["a", "b"]}
    assert first["messages"][0] == {"role": "system", "content": "Be terse."}
    assert (first["format"], first["think"]) == ("json", "high")
    assert second["think"] is False
    assert "format" not in second
    assert out.count("eval rate:            2.00 tokens/s") == 1


def test_mistakes_are_explained_and_survived(server: Replay, talk: Talk) -> None:
    out = talk(
        "/set parameter bananas 3",
        "/set parameter top_k many",
        "/set parameter top_k",
        "/set system",
        "/set format xml",
        "/set think much",
        "/load",
        "/nonsense",
        "hi",
    )
    assert "unknown parameter 'bananas'" in out
    assert "invalid int value [many]" in out
    assert out.count("usage: ") == 3
    assert "the only format to set is json" in out
    assert "invalid think value" in out
    assert "Unknown command '/nonsense'" in out
    assert out.endswith("HI\n\n\n")


def test_a_failed_answer_leaves_no_trace(server: Replay, talk: Talk) -> None:
    replies = iter([Reply(500, [b'{"error":"out of luck"}']), None])
    server.on("POST /api/chat", lambda seen: next(replies) or echo(seen))
    assert "Error: out of luck" in talk("hi", "you")
    assert [m["content"] for m in chats(server)[-1]["messages"]] == ["you"]


def test_show(talk: Talk) -> None:
    assert "parameters      1B" in talk("/show info")
    assert "Be kind." in talk("/show system")
    assert "Be quick." in talk("/set system Be quick.", "/show system")
    assert "No license was specified." in talk("/show license")
    assert "top_k" in talk("/set parameter top_k 7", "/show parameters")
    assert "/show modelfile" in talk("/show")


def test_load_and_save(server: Replay, talk: Talk) -> None:
    talk("/set parameter top_k 7", "/set system S", "hi", "/load other", "you", "/save mine")
    assert chats(server)[-1]["model"] == "other"
    created = server.requests("POST /api/create")[0].json
    assert created["from"] == "other"
    assert created["model"] == "mine"
    assert (created["system"], created["parameters"]) == ("S", {"top_k": 7})
    assert [m["content"] for m in created["messages"]] == ["hi", "HI", "you", "YOU"]


def test_stored_messages_are_shown(talk: Talk) -> None:
    stored = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    assert talk(details={"messages": stored}).startswith(">>> q\n\na\n\n")


def test_help(talk: Talk) -> None:
    assert "/bye" in talk("/?")
    assert "/set parameter" in talk("/? set")
    assert "/show template" in talk("/help /show")
    assert "Ctrl + c" in talk("/? shortcuts")


def test_ctrl_c_at_the_prompt_says_how_to_leave(talk: Talk) -> None:
    out = talk("^C", "hi", "/exit", "never")
    assert "Use Ctrl + d or /bye to exit." in out
    assert "HI" in out
    assert "NEVER" not in out


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["one"], "one"),
        (['"""one"""'], "one"),
        (['"""one', "two", '"""'], "one\ntwo\n"),
        (['"""', "# two", 'three"""'], "\n# two\nthree"),
        (['say """'], 'say """'),
    ],
)
def test_multi_line_messages(lines: list[str], message: str) -> None:
    assert read_message(reading(*lines)) == message


# ---------------------------------------------------------------------------- a real terminal


class Terminal:
    """A program on a pseudo-terminal."""

    def __init__(self, *command: str) -> None:
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            # A shell's background jobs ignore it, and so would what they start.
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.execv(command[0], command)
        self.text = ""

    def until(self, expected: str, seconds: float = 20) -> None:
        deadline = time.monotonic() + seconds
        while expected not in self.text:
            ready, _, _ = select.select([self.fd], [], [], max(0, deadline - time.monotonic()))
            assert ready, f"no {expected!r} in {self.text!r}"
            try:
                self.text += os.read(self.fd, 4096).decode()
            except OSError:
                raise AssertionError(f"ended without {expected!r}: {self.text!r}") from None

    def type(self, text: str) -> None:
        self.text = ""
        os.write(self.fd, text.encode())

    def wait(self) -> int:
        try:
            while os.read(self.fd, 4096):
                pass
        except OSError:
            pass  # a terminal without its program reads so
        os.close(self.fd)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


@pytest.mark.filterwarnings("ignore:.*use of forkpty.*:DeprecationWarning")
def test_ctrl_c_stops_the_answer_and_hangs_up(server: Replay, tmp_path: Path) -> None:
    server.on("POST /api/show", ndjson(DETAILS))
    server.on("POST /api/generate", ndjson({"done": True}))
    endless = threading.Event()
    first = {"message": {"role": "assistant", "content": "Once upon"}}
    server.on("POST /api/chat", ndjson(first, {"message": {"content": "."}}, pause=endless))
    terminal = Terminal(sys.executable, "-m", "lhama.daemon.cli", "run", "m")
    try:
        terminal.until(">>> ")
        terminal.type("a story\n")
        terminal.until("Once upon")
        terminal.type("\x03")
        terminal.until(">>> ")
        assert server.hung_up.wait(5)
        server.on("POST /api/chat", echo)
        terminal.type("well\n")
        terminal.until("WELL")
        sent = chats(server)[-1]["messages"]
        assert [m["content"] for m in sent] == ["a story", "Once upon", "well"]
        terminal.until(">>> ")
        terminal.type("/bye\n")
    finally:
        endless.set()
    assert terminal.wait() == 0
    assert "a story" in (tmp_path / ".local/state/lhama/history").read_text()


def test_what_was_shown_is_kept_when_ctrl_c_comes_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interrupt lands between the printing of a piece and whatever follows."""

    def chunks() -> Generator[dict[str, Any], None, None]:
        yield {"message": {"content": "Once upon"}}
        raise AssertionError("the answer went on")

    shown: list[str] = []

    def say(text: str = "", end: str = "\n") -> None:
        shown.append(text)
        if text == "Once upon":
            raise KeyboardInterrupt

    monkeypatch.setattr(output, "say", say)
    said = answer.show(chunks())
    assert shown[0] == "Once upon"
    assert (said.stopped, said.content) == (True, "Once upon")
