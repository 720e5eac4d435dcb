"""From tokens to text: stop strings, characters, repetition, log-probabilities."""

from __future__ import annotations

import random

import pytest

from lhama.daemon.prompt.output import OutputParser
from lhama.daemon.runner.answer import Answer
from lhama.daemon.runner.repetition import MOST
from lhama.daemon.wire.messages import Prompt, TokenLogprob
from lhama.plugins.backend import RowResult


class Pieces:
    """A tokenizer whose tokens are the pieces it is made of."""

    bos, add_bos, add_eos, end_tokens = -1, False, False, frozenset({0})

    def __init__(self, pieces: list[bytes]) -> None:
        self.pieces = [b"", *pieces]
        self.vocab = len(self.pieces)

    def encode(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        return []

    def piece(self, token: int, *, special: bool = False) -> bytes:
        return self.pieces[token]


def spoken(
    pieces: list[str | bytes], stops: list[str], *, logprobs: bool = False
) -> tuple[list[str], str, list[TokenLogprob]]:
    """The texts that were sent, why the answer ended, and the log-probabilities."""
    raw = [p.encode() if isinstance(p, str) else p for p in pieces]
    answer = Answer(1, Pieces(raw), stops, OutputParser(Prompt(), ""))
    sent: list[str] = []
    probabilities: list[TokenLogprob] = []
    for token in range(1, len(raw) + 1):
        delta = answer.feed(RowResult(0, 0, token, -0.5 if logprobs else None))
        if delta is not None:
            sent.append(delta.content)
            probabilities += delta.logprobs
        if answer.ended():
            break
    rest = answer.flush()
    if rest is not None:
        sent.append(rest.content)
        probabilities += rest.logprobs
    return [text for text in sent if text], answer.ended(), probabilities


@pytest.mark.parametrize(
    ("pieces", "stops", "sent", "end"),
    [
        (["a ", "b ", "c"], [], ["a ", "b ", "c"], ""),
        (["a ", "b ", "c"], [""], ["a ", "b ", "c"], ""),
        (["the", " Earth", " is"], ["Earth"], ["the", " "], "stop"),
        (["Stop", " here"], ["Stop"], [], "stop"),
        (["a", "b", "c", "d"], ["bc"], ["a"], "stop"),
        (["a", "b", "x", "d"], ["bc"], ["a", "bx", "d"], ""),
        (["xa", "b", "c"], ["abc"], ["x"], "stop"),
        (["ab", "ab", "ac"], ["abac"], ["ab"], "stop"),
        (["aa", "a", "b"], ["aab"], ["a"], "stop"),
        (["one two"], ["two", "one"], [], "stop"),
        (["x one two"], ["two", "one"], ["x "], "stop"),
        (["a", "<", "|", "end"], ["<|end|>"], ["a", "<|end"], ""),
        (["a\n", "\n", "b"], ["\n\n"], ["a"], "stop"),
        (["caf", "é", "s"], ["és"], ["caf"], "stop"),
    ],
)
def test_stop_strings(
    pieces: list[str | bytes], stops: list[str], sent: list[str], end: str
) -> None:
    texts, ended, _ = spoken(pieces, stops)
    assert ("".join(texts), ended) == ("".join(sent), end)


def test_all_of_a_text_waits_while_its_end_may_become_a_stop_string() -> None:
    """llama.cpp's server holds a token's whole text back, so that is how streams are cut."""
    assert spoken(["one", " two <", "x", " three"], ["<end>"])[0] == ["one", " two <x", " three"]


@pytest.mark.fault(34)
@pytest.mark.parametrize("seed", range(20))
def test_however_a_text_is_cut_its_stop_string_is_found(seed: int) -> None:
    draw = random.Random(seed)
    stops = ["".join(draw.choices("ab", k=draw.randint(2, 5))) for _ in range(draw.randint(1, 4))]
    text = "".join(draw.choices("abc", k=60))
    found = [at for at in (text.find(stop) for stop in stops) if at >= 0]
    expected = text[: min(found)] if found else text
    pieces: list[str | bytes] = []
    rest = text
    while rest:
        size = draw.randint(1, 4)
        pieces.append(rest[:size])
        rest = rest[size:]
    texts, ended, _ = spoken(pieces, stops)
    # Of two that end in one piece the one that begins first wins, as in llama.cpp's server.
    if "".join(texts) != expected:
        first = min(
            (text.find(stop) + len(stop), text.find(stop)) for stop in stops if stop in text
        )
        assert "".join(texts) == text[: first[1]]
    assert ended == ("stop" if found else "")


@pytest.mark.fault(33)
@pytest.mark.parametrize("text", ["😀", "é猫😀ß", "a😀b", "👩‍👩‍👧"])
def test_characters_are_never_split(text: str) -> None:
    raw = text.encode()
    for size in (1, 2, 3):
        pieces: list[str | bytes] = [raw[n : n + size] for n in range(0, len(raw), size)]
        texts, _, _ = spoken(pieces, [])
        assert "".join(texts) == text
        assert "\ufffd" not in "".join(texts)


def test_half_a_character_at_the_end_is_left_out() -> None:
    assert spoken(["a", "😀".encode()[:3]], [])[0] == ["a"]
    assert spoken(["a", b"b" + "😀".encode()[:2]], [])[0] == ["a", "b"]


@pytest.mark.fault(33)
def test_bytes_that_are_no_text_are_marked() -> None:
    assert spoken(["a", b"\xff", "b"], [])[0] == ["a", "\ufffd", "b"]


def test_a_stop_string_of_several_bytes_split_over_tokens() -> None:
    raw = "ok 終了 more".encode()
    pieces: list[str | bytes] = [bytes([byte]) for byte in raw]
    texts, ended, _ = spoken(pieces, ["終了"])
    assert ("".join(texts), ended) == ("ok ", "stop")


@pytest.mark.parametrize("piece", ["the ", "\n", " 0", "\n "])
def test_an_answer_that_only_repeats_itself_is_ended(piece: str) -> None:
    """Ollama gives up after 30 repetitions; what it forgets is to say that the answer is done."""
    texts, ended, _ = spoken([piece] * 100, [])
    first = 0 if not piece.strip() else 1  # white space repeats the nothing before it
    assert len(texts) == MOST + first
    assert ended == "length"


def test_what_changes_may_go_on() -> None:
    texts, ended, _ = spoken(["a", "b"] * 200, [])
    assert (len(texts), ended) == (400, "")


def test_every_token_has_its_log_probability() -> None:
    """Those of held-back text come with it; a token's bytes are its own."""
    raw = "😀".encode()
    _, _, found = spoken(["a", raw[:2], raw[2:], "<", "end>"], ["<end>"], logprobs=True)
    assert [item.token for item in found] == [b"a", raw[:2], raw[2:], b"<", b"end>"]
    assert {item.logprob for item in found} == {-0.5}


class Marked(Pieces):
    """Its tokens 1 to 4 are special: their text shows only where it is asked for."""

    def piece(self, token: int, *, special: bool = False) -> bytes:
        return self.pieces[token] if special or token > 4 else b""


def test_only_tags_that_the_parser_must_see_become_text() -> None:
    """Harmony needs its messages' tokens (contract §10.21); those of other formats stay hidden."""
    texts = ["<|channel|>", "<|message|>", "<|end|>", "<|call|>", "analysis", "hm", "a"]
    tokenizer = Marked([text.encode() for text in texts])
    parser = OutputParser(Prompt(parser="harmony"), "")
    visible = frozenset(n for n, text in enumerate(texts, 1) if text in parser.tags)
    assert visible == {1, 2, 3}
    answer = Answer(1, tokenizer, [], parser, visible=visible)
    deltas = [answer.feed(RowResult(0, 0, token)) for token in (1, 5, 2, 6, 4)]
    assert "".join(delta.thinking for delta in deltas if delta) == "hm"
