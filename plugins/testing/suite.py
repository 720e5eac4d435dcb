"""What all parts of the conformance suite share: fixtures, and what counts as the same answer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest

from lhama.plugins.backend import Engine
from lhama.plugins.testing.driver import Driver, Stream
from lhama.plugins.testing.subject import Subject

COUNT = 6
"""Tokens of an answer: enough to see a wrong cache, few enough for a slow engine."""


class Suite:
    """Fixtures of every part. ``subject`` is the author's."""

    @pytest.fixture(scope="class")
    @classmethod
    def engine(cls, subject: Subject) -> Iterator[Engine]:
        engine = subject.load()
        yield engine
        engine.close()

    @pytest.fixture
    def driver(self, engine: Engine) -> Driver:
        return Driver(engine)

    @pytest.fixture(scope="class")
    @classmethod
    def prompts(cls, subject: Subject, engine: Engine) -> list[list[int]]:
        """Tokens of the subject's prompts, one for each slot of a group at most, cut to what fits
        into one step together."""
        limits, encode = engine.limits, engine.tokenizer.encode
        texts = subject.prompts[: limits.slots // limits.groups]
        room = limits.batch_tokens // len(texts)
        prompts = [encode(text, add_special=True, parse_special=True)[:room] for text in texts]
        assert len(prompts) > 1
        assert all(len(prompt) >= 6 for prompt in prompts), "prompts of six tokens and more, please"
        return prompts

    @pytest.fixture(scope="class")
    @classmethod
    def alone(cls, subject: Subject, engine: Engine, prompts: list[list[int]]) -> list[Stream]:
        """What each prompt gives when nobody else is there, one half after the other."""
        streams = [
            Stream(0, prompt, COUNT, logprobs=2 if subject.drift else -1) for prompt in prompts
        ]
        for stream in streams:
            Driver(engine).generate(stream, order="off")
        return streams


def assert_same(subject: Subject, expected: Stream, tokens: Sequence[int]) -> None:
    """``tokens`` are what ``expected`` got, up to where the subject's drift lets them part."""
    for position, token in enumerate(tokens):
        result = expected.results[position]
        if token == result.token:
            continue
        top = result.top
        close = len(top) > 1 and top[0][1] - top[1][1] <= subject.drift
        assert close, (
            f"token {position} is {token} and not {result.token}: "
            f"{list(tokens)} against {expected.tokens}"
        )
        return


def need(condition: bool, what: str) -> None:
    """Skip the check where the engine or the subject has no ``what``."""
    if not condition:
        pytest.skip(f"needs {what}")
