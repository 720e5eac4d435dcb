"""The vocabulary of real models through llama.cpp."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

pytest.importorskip("llama_cpp")

from lhama.backends.llamacpp.library import L, log
from lhama.backends.llamacpp.tokenizer import LlamaTokenizer
from lhama.plugins.backend import BackendError

TEXTS = (
    "",
    "Hello, world!",
    "naïve café — “quotes” … ½",
    "日本語のテキストと한국어 그리고 العربية हिन्दी",
    "👩‍👩‍👧‍👦🏳️‍🌈🦙 emoji",
    "tabs\tand\r\nlines\n\n  spaces   ",
    "a\0b",
    "x" * 5000,
)


def tokenizer(path: Path) -> tuple[int, LlamaTokenizer]:
    log()
    params = L.llama_model_default_params()
    params.vocab_only = True
    model = L.llama_model_load_from_file(str(path).encode(), params)
    return model, LlamaTokenizer(L.llama_model_get_vocab(model))


@pytest.fixture(scope="module")
def smol(smollm2: Path) -> Iterator[LlamaTokenizer]:
    model, tokenizer_ = tokenizer(smollm2)
    yield tokenizer_
    L.llama_model_free(model)


@pytest.fixture(scope="module")
def gemma(gemma3: Path) -> Iterator[LlamaTokenizer]:
    model, tokenizer_ = tokenizer(gemma3)
    yield tokenizer_
    L.llama_model_free(model)


def decode(tokenizer_: LlamaTokenizer, tokens: list[int]) -> str:
    return b"".join(tokenizer_.piece(token) for token in tokens).decode()


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: text[:12].encode().hex())
def test_text_comes_back(smol: LlamaTokenizer, gemma: LlamaTokenizer, text: str) -> None:
    for each in (smol, gemma):
        assert decode(each, each.encode(text, add_special=False, parse_special=False)) == text


def test_the_vocabularies(smol: LlamaTokenizer, gemma: LlamaTokenizer) -> None:
    assert (smol.vocab, smol.bos, smol.add_bos, smol.add_eos) == (49152, 1, False, False)
    assert (gemma.vocab, gemma.bos, gemma.add_bos, gemma.add_eos) == (262144, 2, True, False)
    assert 2 in smol.end_tokens  # <|im_end|>
    assert {1, 106} <= gemma.end_tokens  # <eos>, <end_of_turn>


def test_special_tokens_are_read_only_when_asked(smol: LlamaTokenizer) -> None:
    text = "<|im_start|>user"
    special = smol.encode(text, add_special=False, parse_special=True)
    assert special[0] == 1
    plain = smol.encode(text, add_special=False, parse_special=False)
    assert 1 not in plain
    assert decode(smol, plain) == text
    assert smol.piece(1) == b""
    assert smol.piece(1, special=True) == b"<|im_start|>"


def test_bos_comes_first_where_the_model_wants_it(gemma: LlamaTokenizer) -> None:
    assert gemma.encode("hi", add_special=True, parse_special=False)[0] == gemma.bos
    assert gemma.encode("hi", add_special=False, parse_special=False)[0] != gemma.bos


def test_a_lone_surrogate_does_not_break_it(smol: LlamaTokenizer) -> None:
    tokens = smol.encode("a\ud800b", add_special=False, parse_special=False)
    assert decode(smol, tokens) == "a?b"


def test_no_such_token(smol: LlamaTokenizer) -> None:
    for token in (-1, smol.vocab):
        with pytest.raises(BackendError, match="there is no token"):
            smol.piece(token)


def test_many_threads_at_once(smol: LlamaTokenizer) -> None:
    def go(number: int) -> bool:
        text = f"{number}: {TEXTS[3]} {TEXTS[4]}" * 5
        return decode(smol, smol.encode(text, add_special=True, parse_special=True)) == text

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(go, range(64)))
