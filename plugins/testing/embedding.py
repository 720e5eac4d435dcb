"""Models that embed or rank: vectors of the right size, the same alone and in company."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Sequence

import pytest

from lhama.plugins.backend import BackendError, Engine
from lhama.plugins.testing.subject import Subject
from lhama.plugins.testing.suite import Suite, need

LEAST_COSINE = 1 - 1e-4
"""Of a text's vectors alone and in company: kernels change with the number of rows."""


def numbers(vector: bytes) -> tuple[float, ...]:
    return struct.unpack(f"={len(vector) // 4}f", vector)


def alike(first: bytes, second: bytes) -> bool:
    a, b = numbers(first), numbers(second)
    product = sum(x * y for x, y in zip(a, b, strict=True))
    return math.isfinite(product) and product >= LEAST_COSINE * math.hypot(*a) * math.hypot(*b)


class Embeddings(Suite):
    """``Engine.embed``."""

    @pytest.fixture(scope="class")
    @classmethod
    def embedder(cls, subject: Subject) -> Iterator[Engine]:
        need(subject.embedding is not None, "a model that embeds")
        engine = subject.load(subject.embedding, embedding=True)
        yield engine
        engine.close()

    @pytest.fixture(scope="class")
    @classmethod
    def ranker(cls, subject: Subject) -> Iterator[Engine]:
        need(subject.ranking is not None, "a model that ranks")
        engine = subject.load(subject.ranking, embedding=True)
        yield engine
        engine.close()

    @pytest.fixture(scope="class")
    @classmethod
    def texts(cls, subject: Subject, embedder: Engine) -> list[list[int]]:
        encode = embedder.tokenizer.encode
        found = [encode(text, add_special=True, parse_special=True) for text in subject.prompts]
        return found[: embedder.limits.slots]

    def together(self, engine: Engine, texts: Sequence[Sequence[int]]) -> list[list[int]]:
        """As many of the texts as one step takes."""
        taken: list[list[int]] = []
        for text in texts[: engine.limits.slots]:
            if sum(map(len, taken)) + len(text) <= engine.limits.batch_tokens:
                taken.append(list(text))
        return taken

    def test_it_says_that_it_embeds(self, embedder: Engine) -> None:
        assert "embed" in embedder.limits.features
        assert embedder.limits.batch_tokens >= embedder.limits.context > 0

    def test_vectors_are_finite_and_of_one_size(
        self, embedder: Engine, texts: list[list[int]]
    ) -> None:
        vectors = embedder.embed(self.together(embedder, texts)).result()
        assert len({len(vector) for vector in vectors}) == 1
        for vector in vectors:
            assert len(vector) % 4 == 0
            assert all(math.isfinite(number) for number in numbers(vector))
            assert any(numbers(vector))

    def test_asking_again_gives_the_same_vector(
        self, embedder: Engine, texts: list[list[int]]
    ) -> None:
        first, second = (embedder.embed([texts[0]]).result() for _ in range(2))
        assert alike(first[0], second[0])

    def test_a_vector_does_not_depend_on_company(
        self, embedder: Engine, texts: list[list[int]]
    ) -> None:
        step = self.together(embedder, texts)
        for text, vector in zip(step, embedder.embed(step).result(), strict=True):
            assert alike(embedder.embed([text]).result()[0], vector)

    def test_different_texts_have_different_vectors(
        self, embedder: Engine, texts: list[list[int]]
    ) -> None:
        vectors = {embedder.embed([text]).result()[0] for text in texts}
        assert len(vectors) == len(texts)

    def test_a_step_may_be_started_before_the_last_is_read(
        self, embedder: Engine, texts: list[list[int]]
    ) -> None:
        expected = [embedder.embed([text]).result()[0] for text in texts[:2]]
        handles = [embedder.embed([text]) for text in texts[:2]]
        for vector, handle in zip(expected, handles, strict=True):
            assert alike(vector, handle.result()[0])

    def test_the_longest_text_fits(self, embedder: Engine, texts: list[list[int]]) -> None:
        size = embedder.limits.context
        longest = (texts[0] * size)[:size]
        assert len(embedder.embed([longest]).result()) == 1

    def test_a_text_beyond_the_context_is_refused(
        self, embedder: Engine, texts: list[list[int]]
    ) -> None:
        size = embedder.limits.context + 1
        with pytest.raises(BackendError):
            embedder.embed([(texts[0] * size)[:size]]).result()
        assert len(embedder.embed([texts[0]]).result()) == 1

    def test_an_empty_text_is_refused(self, embedder: Engine, texts: list[list[int]]) -> None:
        with pytest.raises(BackendError):
            embedder.embed([[]]).result()
        assert len(embedder.embed([texts[0]]).result()) == 1

    def test_too_many_texts_are_refused(self, embedder: Engine, texts: list[list[int]]) -> None:
        with pytest.raises(BackendError):
            embedder.embed([texts[0]] * (embedder.limits.slots + 1)).result()
        assert len(embedder.embed([texts[0]]).result()) == 1

    def test_a_model_that_ranks_says_so_and_scores(self, subject: Subject, ranker: Engine) -> None:
        assert {"embed", "rank"} <= ranker.limits.features
        text = ranker.tokenizer.encode(subject.prompts[0], add_special=True, parse_special=True)
        [scores] = ranker.embed([text]).result()
        assert all(math.isfinite(number) for number in numbers(scores))
