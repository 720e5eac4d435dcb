"""The pipeline on the real engines: both orders, alone and in company, give the same tokens."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from lhama_testing_line import GREEDY, Line, Received

from lhama.daemon.runner.pipeline import Order
from lhama.plugins.backend import Engine, LoadOptions, ModelFiles, Sampling
from lhama.plugins.manager import discover

STREAMS = 8
QUESTIONS = ("the sky", "the sea", "the sun", "the moon", "fire", "snow", "wind", "a fox")
TOKENS = {"llamacpp": 32, "pytorch": 12}
"""A PyTorch step in float32 on two cores takes a while."""


@pytest.fixture(scope="module", params=["llamacpp", "pytorch"])
def backend(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def engine(backend: str, smollm2: Path) -> Iterator[Engine]:
    options = LoadOptions(slots=STREAMS, context=512, threads=2)
    files = ModelFiles("smollm2", str(smollm2))
    return discover().backends[backend].load(files, options, lambda *_: None)


def prompt(topic: str) -> str:
    return f"<|im_start|>user\nTell me about {topic}.<|im_end|>\n<|im_start|>assistant\n"


def answers(
    line: Line, first_id: int, tokens: int, sampling: Sampling, *, together: bool
) -> list[str]:
    """One answer to each question, all at once or one after the other."""
    received: list[Received] = []
    for n, topic in enumerate(QUESTIONS):
        one = line.submit(first_id + n, prompt(topic), num_predict=tokens, sampling=sampling)
        received.append(one)
        assert together or one.ended.wait(60)
    assert all(one.ended.wait(120) for one in received)
    assert not any(one.error for one in received)
    return [one.text for one in received]


@pytest.mark.parametrize(
    "sampling", [GREEDY, Sampling(temperature=0.8, seed=11)], ids=["greedy", "seeded"]
)
def test_pipelined_equals_sequential(backend: str, smollm2: Path, sampling: Sampling) -> None:
    texts: dict[Order, list[str]] = {}
    for order in ("off", "host"):
        options = LoadOptions(slots=1, context=512, threads=2)
        files = ModelFiles("smollm2", str(smollm2))
        engine = discover().backends[backend].load(files, options, lambda *_: None)
        line = Line(order, engine=engine)
        texts[order] = answers(line, 1, TOKENS[backend], sampling, together=False)
        line.close()
    assert texts["off"] == texts["host"]
    assert len(set(texts["off"])) == STREAMS


def test_streams_share_batches_and_each_gets_what_it_gets_alone(
    backend: str, engine: Engine
) -> None:
    line = Line("host", engine=engine)
    together = answers(line, 100, TOKENS[backend], GREEDY, together=True)
    steps = [len(plan.rows) for plan in line.plans]
    alone = answers(line, 200, TOKENS[backend], GREEDY, together=False)
    line.close()
    print("rows of each step:", steps)
    assert max(steps) == STREAMS
    assert sum(steps) / len(steps) > STREAMS / 2
    assert together == alone
