"""WordPiece in PyTorch's tokenizer against llama.cpp's, letter by letter."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from pathlib import Path

import bert_oracle
import pytest
from bert_models import tiny_bert
from hypothesis import given, settings
from hypothesis import strategies as st

from lhama.backends.llamacpp.library import L, log
from lhama.backends.llamacpp.tokenizer import LlamaTokenizer
from lhama.backends.pytorch.tokenizer import GGUFTokenizer
from lhama.plugins.backend import Tokenizer, UnsupportedModel
from lhama.plugins.gguf import read

OTHERS = (
    "",
    " ",
    "한국어 텍스트",
    "हिन्दी में लिखा हुआ",
    "ภาษาไทย",
    "tel:+49-30-1234 (home)",
    "a" * 300,
    "x\x00y\x1fz\ufffd",
    "[UNK][MASK] [unused7] [CLS",
    "ﬁ ﬂ ß ſ Å İ ı ǆ",
)


@pytest.fixture(scope="module")
def pair(minilm: Path) -> Iterator[tuple[Tokenizer, Tokenizer]]:
    """llama.cpp's tokenizer and the one for PyTorch."""
    log()
    params = L.llama_model_default_params()
    params.vocab_only = True
    model = L.llama_model_load_from_file(str(minilm).encode(), params)
    yield (
        LlamaTokenizer(L.llama_model_get_vocab(model)),
        GGUFTokenizer(read(minilm, vocabulary=True)),
    )
    L.llama_model_free(model)


def same(pair: tuple[Tokenizer, Tokenizer], text: str) -> None:
    for special in (False, True):
        for parse in (False, True):
            theirs, ours = (t.encode(text, add_special=special, parse_special=parse) for t in pair)
            assert ours == theirs, text


@pytest.mark.parametrize("text", [*bert_oracle.TEXTS, *OTHERS])
def test_texts(pair: tuple[Tokenizer, Tokenizer], text: str) -> None:
    same(pair, text)


@settings(max_examples=300, deadline=None)
@given(st.text(st.characters(exclude_categories=("Cs", "Cn")), max_size=60))
def test_any_text(pair: tuple[Tokenizer, Tokenizer], text: str) -> None:
    same(pair, text)


def test_every_letter_between_two_others(pair: tuple[Tokenizer, Tokenizer]) -> None:
    """In a row, so that one call tokenizes a thousand; those of newer Unicodes left out."""
    letters = [
        chr(code)
        for code in range(1, 0x30000)
        if unicodedata.category(chr(code)) not in ("Cs", "Cn")
    ]
    for begin in range(0, len(letters), 1000):
        text = " ".join(f"a{letter}b" for letter in letters[begin : begin + 1000])
        theirs, ours = (t.encode(text, add_special=False, parse_special=False) for t in pair)
        assert ours == theirs, f"between {letters[begin]!r} and the thousandth after it"


def test_what_is_said_of_the_vocabulary(pair: tuple[Tokenizer, Tokenizer]) -> None:
    theirs, ours = pair
    for name in ("vocab", "bos", "add_bos", "add_eos", "end_tokens"):
        assert getattr(ours, name) == getattr(theirs, name), name
    for token in range(0, theirs.vocab, 7):
        for special in (False, True):
            assert ours.piece(token, special=special) == theirs.piece(token, special=special)


@pytest.mark.parametrize(
    "options",
    [{"lowercase": False}, {"strip_accents": False}, {"lowercase": False, "strip_accents": True}],
)
def test_cased_models(tmp_path: Path, options: dict[str, bool]) -> None:
    metadata = {f"tokenizer.ggml.normalizer.{name}": value for name, value in options.items()}
    path = tiny_bert(tmp_path / "m.gguf", metadata=metadata)
    params = L.llama_model_default_params()
    params.vocab_only = True
    model = L.llama_model_load_from_file(str(path).encode(), params)
    theirs = LlamaTokenizer(L.llama_model_get_vocab(model))
    ours = GGUFTokenizer(read(path, vocabulary=True))
    for text in ("The Sky", "the sky, blue?", "café", "CAFE\u0301", "a é b"):
        same((theirs, ours), text)
    L.llama_model_free(model)


def test_a_vocabulary_without_its_special_tokens(tmp_path: Path) -> None:
    path = tiny_bert(
        tmp_path / "m.gguf",
        metadata={
            "tokenizer.ggml.tokens": ["a", "b"],
            "tokenizer.ggml.token_type": [1, 1],
        },
    )
    with pytest.raises(UnsupportedModel, match=r"no \[CLS\], \[SEP\] or \[UNK\]"):
        GGUFTokenizer(read(path, vocabulary=True))
