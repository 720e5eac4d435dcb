"""What the model learns, by texts small enough to reckon with."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from lhama_ngram.model import Model
from lhama_ngram.tokenizer import END
from lhama_ngram.training import train


def test_what_follows_in_the_text_is_likely(tmp_path: Path) -> None:
    train([b"abcabcabd"], tmp_path / "m.gguf", "m")
    model = Model(str(tmp_path / "m.gguf"))
    values = model.log_probabilities(list(b"xab"))
    ranked = sorted(range(len(values)), key=lambda token: -values[token])
    assert ranked[:2] == list(b"cd")
    assert sum(math.exp(value) for value in values) == pytest.approx(1)
    model.close()


def test_the_end_of_a_text_ends_the_answer(tmp_path: Path) -> None:
    train([b"one and done", b"another"], tmp_path / "m.gguf", "m")
    model = Model(str(tmp_path / "m.gguf"))
    values = model.log_probabilities(list(b"and done"))
    assert max(range(len(values)), key=values.__getitem__) == END
    model.close()
