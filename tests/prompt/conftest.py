"""A real tokenizer (SmolLM2's, through llama.cpp, vocabulary only) and a small one for rules."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from lhama_testing_words import WordTokenizer

from lhama.plugins.backend import Tokenizer


@pytest.fixture(scope="session")
def smollm2_tokenizer(smollm2: Path) -> Iterator[Tokenizer]:
    llama_cpp = pytest.importorskip("llama_cpp", reason="needs lhama[llamacpp]")
    from lhama.backends.llamacpp.tokenizer import LlamaTokenizer

    llama_cpp.llama_backend_init()
    parameters = llama_cpp.llama_model_default_params()
    parameters.vocab_only = True
    model = llama_cpp.llama_model_load_from_file(str(smollm2).encode(), parameters)
    assert model
    yield LlamaTokenizer(llama_cpp.llama_model_get_vocab(model))
    llama_cpp.llama_model_free(model)


@pytest.fixture
def words() -> WordTokenizer:
    return WordTokenizer()
