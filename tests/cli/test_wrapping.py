"""Lines of an answer at a terminal: what stands on the screen, however the text came."""

from __future__ import annotations

import os
import pty
import random
import re
import sys
import termios
import unicodedata
from pathlib import Path

import pytest

from lhama.daemon.cli import wrapping
from lhama.daemon.cli.wrapping import Wrapper

COLUMNS = 24
TEXTS = {
    "words": "The quick brown fox jumps over the lazy dog, and then over another one. " * 3,
    "exact": "abcdefghijkl mnopqrstuv wxyz abcdefghijklmnopqrstuvw x",
    "lines": "- one\n- two and something\n\n\nthree four five six seven eight",
    "long": "see https://example.com/a/very/long/address/that/fits/nowhere and go on reading it",
    "wide": "你好世界你好世界你好世界你好世界 and some words 你好世界你好世界",
    "accents": "re\u0301sume\u0301 na\u00efve cafe\u0301 de\u0301ja\u0300 vu and all of it again",
    "tabs": "a\tb\tc\td and more words behind",
}


class Screen:
    """As much of a terminal as the wrapper uses."""

    def __init__(self) -> None:
        self.lines: list[list[str]] = [[]]
        self.column = 0
        self.broken = 0
        """Lines that the terminal broke itself."""

    def write(self, text: str) -> None:
        for part in re.findall(r"\x1b\[\d*[DK]|.", text, re.S):
            if part == "\n":
                self.lines.append([])
                self.column = 0
            elif part.endswith("D") and len(part) > 1:
                self.column -= int(part[2:-1])
                assert self.column >= 0
            elif part == "\x1b[K":
                del self.lines[-1][self.column :]
            elif part == "\t":
                self.put(" ", 8 - self.column % 8)
            elif unicodedata.combining(part):
                self.lines[-1][self.column - 1] += part
            else:
                self.put(part, 2 if unicodedata.east_asian_width(part) in "WF" else 1)

    def put(self, character: str, cells: int) -> None:
        if self.column + cells > COLUMNS:
            self.broken += 1
            self.lines.append([])
            self.column = 0
        assert len(self.lines[-1]) == self.column, "written behind the cursor"
        self.lines[-1] += [character, *[""] * (cells - 1)]
        self.column += cells

    @property
    def text(self) -> list[str]:
        return ["".join(line).rstrip() for line in self.lines]


def shown(text: str, sizes: random.Random | None = None) -> Screen:
    screen, wrapped = Screen(), Wrapper(COLUMNS)
    while text:
        size = sizes.randint(1, 9) if sizes else len(text)
        screen.write(wrapped(text[:size]))
        text = text[size:]
    return screen


@pytest.mark.parametrize("name", TEXTS)
def test_words_stay_whole_however_they_come(name: str) -> None:
    whole = shown(TEXTS[name])
    for seed in range(20):
        assert shown(TEXTS[name], random.Random(seed)).text == whole.text
    words = [word for line in whole.text for word in line.split()]
    if name == "long":
        assert whole.broken == 2, "the address is the terminal's"
        assert whole.text[-2:] == ["s/nowhere and go on", "reading it"]
    elif name == "wide":
        assert "".join(words) == TEXTS[name].replace(" ", "")
    else:
        assert words == TEXTS[name].split()
        assert whole.broken == 0


def test_lines_are_filled() -> None:
    assert shown(TEXTS["exact"]).text == [
        "abcdefghijkl mnopqrstuv",
        "wxyz",
        "abcdefghijklmnopqrstuvw",
        "x",
    ]
    assert shown(TEXTS["lines"]).text[:5] == [
        "- one",
        "- two and something",
        "",
        "",
        "three four five six",
    ]


@pytest.mark.parametrize(
    ("name", "columns", "wraps"), [("xterm", 80, True), ("dumb", 80, False), ("xterm", 10, False)]
)
def test_for_which_terminals(
    monkeypatch: pytest.MonkeyPatch, name: str, columns: int, wraps: bool
) -> None:
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, columns))
    monkeypatch.setenv("TERM", name)
    with os.fdopen(ours), os.fdopen(theirs, "w") as screen:
        monkeypatch.setattr(sys, "stdout", screen)
        assert (wrapping.terminal() is not None) == wraps


def test_not_for_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (tmp_path / "out").open("w") as file:
        monkeypatch.setattr(sys, "stdout", file)
        assert wrapping.terminal() is None
