from __future__ import annotations

from typing import Any

import pytest
from lhama_testing_words import WordTokenizer

from lhama.daemon.errors import BadRequest, LhamaError, RunnerFailed
from lhama.daemon.prompt import fit
from lhama.daemon.prompt.build import ModelFacts, build, render
from lhama.daemon.wire.messages import Message, Prompt

CHATML = (
    "{{- range .Messages }}<|im_start|>{{ .Role }}\n{{ .Content }}<|im_end|>\n{{ end }}"
    "<|im_start|>assistant\n"
)
NOTHING = ModelFacts()


@pytest.mark.parametrize(
    ("num_ctx", "keep", "total"),
    [(4096, 5, 2051), (4096, 4, 2050), (64, 4, 34), (64, 0, 32), (64, 63, 63), (4, 3, 3)],
)
def test_kept_total(num_ctx: int, keep: int, total: int) -> None:
    assert fit.kept_total(num_ctx, keep) == total


@pytest.mark.parametrize(
    ("length", "num_ctx", "num_keep", "bos", "expected"),
    [
        (63, 64, 4, False, list(range(63))),
        (64, 64, 4, False, [0, 1, 2, 3, *range(34, 64)]),
        (200, 64, 0, False, list(range(168, 200))),
        (200, 64, -1, False, list(range(63))),
        (200, 64, 4, True, [0, 1, 2, 3, 4, *range(170, 200)]),
        (200, 64, 1000, False, list(range(63))),
        (9, 4, 4, False, [0, 1, 2]),
    ],
)
def test_cut(length: int, num_ctx: int, num_keep: int, bos: bool, expected: list[int]) -> None:
    assert fit.cut(list(range(length)), num_ctx, num_keep, shift=True, bos=bos) == expected


@pytest.mark.parametrize(
    ("asked", "real"), [(1, 256), (64, 256), (256, 256), (257, 512), (4096, 4096)]
)
def test_real_context(asked: int, real: int) -> None:
    assert fit.real_context(asked) == real


def built(prompt: Prompt, words: WordTokenizer, limit: int = 4096, **more: Any) -> list[str]:
    given = {"num_keep": 4, "shift": True, "facts": NOTHING} | more
    facts, keep, shift = given["facts"], given["num_keep"], given["shift"]
    tokens = build(prompt, words, facts, limit, keep, shift).tokens
    return [words.words[token] for token in tokens]


def test_raw_is_tokenized_as_it_is(words: WordTokenizer) -> None:
    assert built(Prompt(raw="a b <think>"), words) == ["<s>", "a", "b", "<think>"]


def test_bos_text_is_not_doubled(words: WordTokenizer) -> None:
    assert built(Prompt(raw="<s>a"), words) == ["<s>", "a"]
    without = WordTokenizer(add_bos=False)
    assert built(Prompt(raw="<s> a"), without) == ["<s>", "a"]


def test_context_is_put_in_front(words: WordTokenizer) -> None:
    words.encode("earlier text", add_special=False, parse_special=True)
    prompt = Prompt([Message("user", "u")], go_template="{{ .Prompt }}", context=[1, 3, 4])
    assert render(prompt, words, NOTHING, 64).text == "<s>earlier text u"
    prompt.context = [10_000]
    with pytest.raises(LhamaError, match=r"which is 10000\) >= this->size") as refused:
        render(prompt, words, NOTHING, 64)
    assert refused.value.status == 500


def test_long_raw_is_cut_and_text_stays_whole(words: WordTokenizer) -> None:
    prompt = Prompt(raw=" ".join(f"w{i}" for i in range(100)), num_ctx=32)
    answer = build(prompt, words, NOTHING, 256, 4, True)
    kept = [words.words[token] for token in answer.tokens]
    assert kept == ["<s>", "w0", "w1", "w2", "w3", *(f"w{i}" for i in range(86, 100))]
    assert answer.text == prompt.raw


def test_too_long(words: WordTokenizer) -> None:
    prompt = Prompt(raw="w " * 300, num_ctx=32)
    with pytest.raises(BadRequest, match="longer than the context length") as refused:
        built(prompt, words, limit=256, shift=False)
    assert not isinstance(refused.value, RunnerFailed)
    prompt.truncate = False
    with pytest.raises(RunnerFailed) as beyond:
        built(prompt, words, limit=256)
    assert beyond.value.kind == "exceed_context_size_error"
    assert beyond.value.details == {"n_prompt_tokens": 301, "n_ctx": 256}
    assert len(built(prompt, words, limit=512)) == 301


def test_long_chat_by_jinja_is_refused_not_cut(words: WordTokenizer) -> None:
    facts = ModelFacts(jinja="{% for m in messages %}{{ m.content }} {% endfor %}")
    prompt = Prompt([Message("user", "w " * 300)])
    with pytest.raises(RunnerFailed, match="exceeds the available context size"):
        built(prompt, words, limit=256, facts=facts)


def test_history_is_truncated(words: WordTokenizer) -> None:
    turns = [Message("system", "S")]
    turns += [Message("assistant" if i % 2 else "user", f"m{i} " * 5) for i in range(21)]
    prompt = Prompt(turns, go_template=CHATML, num_ctx=24)
    text = render(prompt, words, NOTHING, 256).text
    assert [f"m{i} " in text for i in range(21)] == [False] * 19 + [True] * 2
    assert "S<|im_end|>" in text
    prompt.truncate = False
    assert all(f"m{i} " in render(prompt, words, NOTHING, 256).text for i in range(21))
    short = Prompt(turns[-1:], go_template=CHATML, num_ctx=4)
    assert "m20" in render(short, words, NOTHING, 256).text


def test_a_conversation_that_fits_is_tokenized_once_for_it(words: WordTokenizer) -> None:
    render(Prompt([Message("user", "hi")] * 9, go_template=CHATML), words, NOTHING, 256)
    assert words.calls == 1


def test_no_template(words: WordTokenizer) -> None:
    turns = [Message("system", "S"), Message("user", "u")]
    assert render(Prompt(turns, text="u"), words, NOTHING, 64).text == "u"
    expected = (
        "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nu<|im_end|>\n<|im_start|>assistant\n"
    )
    assert render(Prompt(turns), words, NOTHING, 64).text == expected


LEGACY = "{{ if .System }}S:{{ .System }} {{ end }}{{ if .Prompt }}U:{{ .Prompt }} {{ end }}A:{{ .Response }}<end> "


@pytest.mark.parametrize(
    ("template", "turns", "expected"),
    [
        (LEGACY, "u=hi", "U:hi A:"),
        (LEGACY, "s=be u=hi", "S:be U:hi A:"),
        (LEGACY, "s=be u=hi a=yo u=more", "S:be U:hi A:yo<end> U:more A:"),
        (LEGACY, "u=hi a=yo", "U:hi A:yo"),
        (LEGACY, "u=hi s=now u=go", "U:hi A:<end> S:now U:go A:"),
        ("{{ .Prompt }}", "u=hi", "hi"),
        ("{{ .Prompt }}", "u=hi a=yo u=more", "hiyomore"),
        ("static", "u=hi", "static"),
        ("{{ if .Response }}R{{ end }}{{ .Prompt }}|{{ .Response }}|", "u=a a=b u=c", "Ra|b|c|"),
    ],
)
def test_legacy_templates(template: str, turns: str, expected: str, words: WordTokenizer) -> None:
    roles = {"s": "system", "u": "user", "a": "assistant"}
    messages = [Message(roles[turn[0]], turn[2:]) for turn in turns.split()]
    prompt = Prompt(messages, go_template=template)
    assert render(prompt, words, NOTHING, 4096).text == expected


def test_legacy_blocks_around_the_response_are_closed(words: WordTokenizer) -> None:
    template = (
        '{{ define "tail" }}<eot>{{ end }}{{ with .Prompt }}{{ . }}{{ template "tail" }}{{ end }}'
        "{{ if .Prompt }}{{ range (slice .Prompt 0 0) }}{{ end }}A {{ .Response -}} <end>"
        "{{ else }}none{{ end }} tail"
    )
    prompt = Prompt([Message("user", "u"), Message("assistant", "x")], go_template=template)
    with pytest.raises(LhamaError, match="range") as refused:
        render(prompt, words, NOTHING, 64)
    assert refused.value.status == 500
    prompt.go_template = template.replace("{{ range (slice .Prompt 0 0) }}{{ end }}", "")
    assert render(prompt, words, NOTHING, 64).text == "u<eot>A x"


def test_fill(words: WordTokenizer) -> None:
    fim = "{{ if .Suffix }}<P>{{ .Prompt }}<S>{{ .Suffix }}<M>{{ else }}{{ .Prompt }}{{ end }}"
    prompt = Prompt(go_template=fim, fill=True, text="a", suffix="b", system="ignored")
    assert render(prompt, words, NOTHING, 64).text == "<P>a<S>b<M>"
    once = Prompt(go_template="{{ .System }}|{{ .Prompt }}", fill=True, text="a", system="S")
    assert render(once, words, NOTHING, 64).text == "S|a"


@pytest.mark.parametrize(
    ("think", "seen"),
    [
        (None, "false  false"),
        (False, "false  true"),
        (True, "true medium true"),
        ("high", "true high true"),
    ],
)
def test_think_values(think: bool | str | None, seen: str, words: WordTokenizer) -> None:
    template = "{{ .Think }} {{ .ThinkLevel }} {{ .IsThinkSet }}{{ range .Messages }}{{ end }}"
    prompt = Prompt([Message("user", "u")], go_template=template, think=think)
    assert render(prompt, words, NOTHING, 64).text == seen


def test_images_are_marked_and_counted(words: WordTokenizer) -> None:
    turns = [Message("user", "see", images=[b"x", b"y"])]
    rendered = render(Prompt(turns, go_template=CHATML), words, NOTHING, 64)
    assert "[img-0][img-1]see" in rendered.text
    assert rendered.images == [b"x", b"y"]


def test_facts_of_a_file_that_is_no_gguf(tmp_path: Any) -> None:
    path = tmp_path / "weights"
    path.write_bytes(b"no model")
    assert ModelFacts.read(str(path)) == ModelFacts.read(str(tmp_path / "absent")) == ModelFacts()
