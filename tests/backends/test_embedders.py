"""Embedding models on both backends: against the original, against each other, in batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import bert_oracle
import numpy as np
import pytest
import torch
from bert_models import CONTEXT, tiny_bert
from lhama_testing_models import changed_copy
from pytorch_models import tiny

from lhama.backends.llamacpp.backend import LlamaCppBackend
from lhama.backends.pytorch.backend import PyTorchBackend
from lhama.daemon.runner.texts import TextFacts, TextTokenizer
from lhama.daemon.wire.messages import Rank
from lhama.plugins.backend import (
    BackendError,
    Engine,
    LoadOptions,
    ModelFiles,
    StepPlan,
    UnsupportedModel,
)

BACKENDS = (LlamaCppBackend(), PyTorchBackend())
both = pytest.mark.parametrize("backend", BACKENDS, ids=["llamacpp", "pytorch"])

Backend = LlamaCppBackend | PyTorchBackend


def load(backend: Backend, path: Path, context: int = 512, batch: int = 512) -> Engine:
    options = LoadOptions(context=context, batch=batch, threads=2, embedding=True)
    return backend.load(ModelFiles("m", str(path)), options, lambda share, what: None)


def embed(engine: Engine, inputs: Sequence[Sequence[int]]) -> torch.Tensor:
    """[texts, width], each text in a step of its own."""
    return torch.stack([step(engine, [tokens])[0] for tokens in inputs])


def step(engine: Engine, inputs: Sequence[Sequence[int]]) -> torch.Tensor:
    vectors = engine.embed(inputs).result()
    return torch.from_numpy(np.stack([np.frombuffer(vector, np.float32) for vector in vectors]))


def steps(engine: Engine, inputs: Sequence[Sequence[int]]) -> torch.Tensor:
    """[texts, width], as many texts in a step as fit."""
    found, held = [], list[Sequence[int]]()
    for tokens in inputs:
        full = len(held) == engine.limits.slots
        if held and (full or sum(map(len, (*held, tokens))) > engine.limits.batch_tokens):
            found.append(step(engine, held))
            held = []
        held.append(tokens)
    return torch.cat([*found, step(engine, held)])


def encoded(engine: Engine, texts: Sequence[str]) -> list[list[int]]:
    encode = engine.tokenizer.encode
    return [encode(text, add_special=True, parse_special=True) for text in texts]


# ------------------------------------------------------------------------------ all-MiniLM-L6-v2


@pytest.fixture(scope="module", params=BACKENDS, ids=["llamacpp", "pytorch"])
def engine(request: pytest.FixtureRequest, minilm: Path) -> Iterator[Engine]:
    engine = load(request.param, minilm)
    yield engine
    engine.close()


def test_vectors_are_sentence_transformers_own(engine: Engine) -> None:
    inputs = [bert_oracle.tokens(text) for text in bert_oracle.TEXTS]
    assert len(inputs) >= 30
    expected = torch.stack([bert_oracle.vector(text) for text in bert_oracle.TEXTS])
    found = steps(engine, inputs)
    assert torch.cosine_similarity(found, expected).min() >= 0.9999
    torch.testing.assert_close(found.norm(dim=1), expected.norm(dim=1), rtol=1e-2, atol=0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_card_gives_the_same_vectors(minilm: Path) -> None:
    engine = load(BACKENDS[1], minilm)
    assert engine.residency.device == "cuda:0"
    expected = torch.stack([bert_oracle.vector(text) for text in bert_oracle.TEXTS])
    found = steps(engine, [bert_oracle.tokens(text) for text in bert_oracle.TEXTS])
    engine.close()
    assert torch.cosine_similarity(found, expected).min() >= 0.9999


def test_tokens_are_hugging_faces(engine: Engine) -> None:
    for text, tokens in zip(bert_oracle.TEXTS, encoded(engine, bert_oracle.TEXTS), strict=True):
        known = bert_oracle.tokens(text)
        assert tokens[: len(known) - 1] == known[:-1]


def test_a_step_of_many_gives_what_each_gives_alone(engine: Engine) -> None:
    inputs = encoded(engine, bert_oracle.TEXTS)
    alone, together = embed(engine, inputs), steps(engine, inputs)
    assert torch.cosine_similarity(alone, together).min() > 0.99999
    backwards = steps(engine, inputs[::-1]).flip(0)
    assert torch.cosine_similarity(backwards, together).min() > 0.99999


def test_steps_beyond_the_limits_are_refused(engine: Engine) -> None:
    assert engine.limits.context == 512
    assert engine.limits.features == {"embed"}
    most = engine.limits.batch_tokens
    for wrong, words in (
        ([], "0 texts"),
        ([[]], "no tokens"),
        ([[1] * 513], "513 tokens exceeds the limit of 512"),
        ([[1]] * (engine.limits.slots + 1), "texts in a step of at most"),
        ([[1] * 100] * (most // 100 + 1), f"more than {most} tokens together"),
    ):
        with pytest.raises(BackendError, match=words):
            engine.embed(wrong)
    assert len(step(engine, [[1] * 512])) == 1, "alone a text may have more"
    with pytest.raises(BackendError, match="does not generate"):
        engine.prepare_next(StepPlan(1, ()), None)


# --------------------------------------------------------------------- families and ways to pool


@pytest.mark.parametrize("pooling", [0, 1, 2, 3], ids=["none: mean", "mean", "cls", "last"])
@pytest.mark.parametrize("family", ["bert", "nomic-bert"])
def test_berts_pool_as_llama_cpp_does(tmp_path: Path, family: str, pooling: int) -> None:
    path = tiny_bert(tmp_path / "m.gguf", family, pooling=pooling)
    found = _both(path, ["the sky is blue", "a cat", "x", "the sea, blue? " * 15])
    assert torch.cosine_similarity(*found).min() > 0.999


@pytest.mark.parametrize("pooling", [1, 2, 3], ids=["mean", "cls", "last"])
@pytest.mark.parametrize("family", ["llama", "gemma3", "qwen3"])
def test_decoders_pool_as_llama_cpp_does(tmp_path: Path, family: str, pooling: int) -> None:
    path = tiny(tmp_path / "m.gguf", family, metadata={"pooling_type": pooling})
    found = _both(path, ["the hat", "a", "the three hens on the heath " * 3])
    assert torch.cosine_similarity(*found).min() > 0.999


@pytest.mark.parametrize("dense", [False, True], ids=["plain", "dense"])
def test_embedding_gemma_is_llama_cpps(tmp_path: Path, dense: bool) -> None:
    """Texts of up to eight windows; with the dense layers behind the pooling, and without."""
    keys = {"dense_2_feat_in": 64, "dense_2_feat_out": 96, "dense_3_feat_in": 96}
    path = tiny(
        tmp_path / "m.gguf",
        "gemma-embedding",
        metadata={"pooling_type": 1, **(keys | {"dense_3_feat_out": 64} if dense else {})},
        extra={"dense_2.weight": (64, 96), "dense_3.weight": (96, 64)} if dense else {},
    )
    found = _both(path, ["the hat", "a", "the three hens on the heath " * 4, "he " * 20])
    assert found[0].shape == (4, 64)
    assert torch.cosine_similarity(*found).min() > 0.999


def test_a_real_decoder_gives_the_same_on_both_backends(smollm2: Path, tmp_path: Path) -> None:
    """8-bit activations in llama.cpp: the directions agree, not the last digits."""
    path = tmp_path / "embedder.gguf"
    changed_copy(smollm2, path, {"llama.pooling_type": 1})
    found = _both(path, ["The sky is blue.", "Der Himmel ist blau.", "def f(): return 1"])
    assert torch.cosine_similarity(*found).min() > 0.998


def _both(path: Path, texts: Sequence[str]) -> list[torch.Tensor]:
    found = []
    for backend in BACKENDS:
        engine = load(backend, path, CONTEXT, CONTEXT)
        inputs = encoded(engine, texts)
        found.append(steps(engine, inputs))
        assert torch.cosine_similarity(found[-1], embed(engine, inputs)).min() > 0.9999
        engine.close()
    return found


@both
def test_a_batch_bounds_a_text_unless_its_last_token_tells_all(
    backend: Backend, tmp_path: Path
) -> None:
    mean = tiny(tmp_path / "mean.gguf", "llama", layers=2, metadata={"pooling_type": 1})
    engine = load(backend, mean, context=256, batch=32)
    assert engine.limits.context == 32
    engine.close()
    last = tiny(tmp_path / "last.gguf", "llama", layers=2, metadata={"pooling_type": 3})
    engine = load(backend, last, context=256, batch=32)
    assert engine.limits.context == 256
    assert step(engine, [[5] * 256]).isfinite().all()
    engine.close()


@both
def test_long_texts_are_computed_in_pieces(
    backend: Backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tiny(tmp_path / "last.gguf", "llama", layers=2, metadata={"pooling_type": 3})
    inputs = [list(range(3, 203)), [7, 8, 9]]
    whole = load(backend, path, context=256)
    expected = embed(whole, inputs)
    whole.close()
    monkeypatch.setattr("lhama.backends.llamacpp.memory.EMBEDDING_TOKENS", 96)
    monkeypatch.setattr("lhama.backends.pytorch.memory.embedding_tokens", lambda kind: 96)
    pieces = load(backend, path, context=256)
    assert pieces.limits.context == 256
    assert torch.cosine_similarity(embed(pieces, inputs), expected).min() > 0.9999
    pieces.close()


# --------------------------------------------------------------------------------------- ranking


@pytest.mark.parametrize("dense", [True, False], ids=["dense", "direct"])
@pytest.mark.parametrize("classes", [1, 3])
def test_rerankers_score_as_llama_cpp_does(tmp_path: Path, classes: int, dense: bool) -> None:
    path = tiny_bert(tmp_path / "m.gguf", pooling=4, classes=classes, dense=dense)
    _rankers_agree(path, classes)


def test_qwen3_ranks_as_llama_cpp_does(tmp_path: Path) -> None:
    """By the last token; its two classes are shares of 1."""
    path = tiny(
        tmp_path / "m.gguf",
        "qwen3",
        metadata={"pooling_type": 4, "classifier.output_labels": ["yes", "no"]},
        extra={"cls.output.weight": (64, 2)},
    )
    scores = _rankers_agree(path, 2)
    torch.testing.assert_close(scores.sum(1), torch.ones(3), atol=1e-3, rtol=0)


def _rankers_agree(path: Path, classes: int) -> torch.Tensor:
    found = []
    for backend in BACKENDS:
        engine = load(backend, path, CONTEXT, CONTEXT)
        assert engine.limits.features == {"embed", "rank"}
        inputs = encoded(engine, ["the sky[SEP]is blue", "the sky[SEP]a cat", "x[SEP]y"])
        found.append(steps(engine, inputs))
        torch.testing.assert_close(found[-1], embed(engine, inputs), atol=1e-3, rtol=1e-3)
        engine.close()
    assert found[0].shape == (3, classes)
    torch.testing.assert_close(found[1], found[0], atol=2e-2, rtol=2e-2)
    assert not torch.allclose(found[0][0], found[0][1], atol=2e-3), "documents differ"
    return found[0]


def test_pairs_are_put_together_as_hugging_face_does(engine: Engine, minilm: Path) -> None:
    tokenizer = TextTokenizer(engine.tokenizer, TextFacts.read(str(minilm)), 512)
    query, documents = "Why is the sky blue?", ["Scattered light.", "", "Größe 42!"]
    pairs = tokenizer.pairs(Rank(1, query, documents))
    assert [pair.tokens for pair in pairs] == [
        bert_oracle.pair(query, document) for document in documents
    ]


# ----------------------------------------------------------------------------------- what is not


@pytest.mark.parametrize("family", ["bert", "gemma-embedding"])
def test_encoders_do_not_generate_under_pytorch(tmp_path: Path, family: str) -> None:
    path = tmp_path / "m.gguf"
    tiny_bert(path) if family == "bert" else tiny(path, family)
    options = LoadOptions(context=64, threads=1)
    with pytest.raises(UnsupportedModel, match="does not generate"):
        BACKENDS[1].load(ModelFiles("m", str(path)), options, lambda share, what: None)


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({"bert.attention.causal": True}, "seeing ahead"),
        ({"bert.embedding_length": 32}, "wrong shape"),
        ({"bert.attention.head_count": 5}, "5 heads"),
        ({"bert.block_count": 0}, "block_count is missing or makes no sense"),
        ({"tokenizer.ggml.tokens": ["a"]}, "1 tokens in the vocabulary"),
        ({"tokenizer.ggml.model": "t5"}, "does not know the tokenizer 't5'"),
    ],
)
def test_berts_that_make_no_sense(tmp_path: Path, metadata: dict[str, Any], words: str) -> None:
    path = tiny_bert(tmp_path / "m.gguf", metadata=metadata)
    support = PyTorchBackend().supports(ModelFiles("m", str(path)))
    assert support.score == 0
    assert words in support.reason


@both
def test_the_estimate_of_a_bert_counts_no_cache(backend: Backend, minilm: Path) -> None:
    options = LoadOptions(context=512, batch=512, embedding=True)
    found = backend.estimate(ModelFiles("m", str(minilm)), options)
    assert found.kv_bytes == 0
    assert 45_000_000 < found.weights_bytes < 92_000_000
    assert 0 < found.compute_bytes < 400_000_000
