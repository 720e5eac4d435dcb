"""How texts of many requests become steps, on the reference engine."""

from __future__ import annotations

import threading
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from lhama.backends.reference.engine import TEXTS, ReferenceEngine
from lhama.backends.reference.model import Behaviour
from lhama.daemon.runner.embedding import EmbeddingLine, TextRequest
from lhama.daemon.runner.pipeline import Cancelled
from lhama.daemon.runner.texts import TextTokens
from lhama.daemon.wire.messages import Embedded, Failed, FromRunner
from lhama.plugins.backend import LoadOptions

OPTIONS = LoadOptions(context=64, batch=64, embedding=True)


@dataclass
class Received:
    vectors: list[bytes] = field(default_factory=list)
    frames: int = 0
    tokens: int = 0
    truncated: int = 0
    error: str = ""
    ended: threading.Event = field(default_factory=threading.Event)


class Line:
    """A line on its own thread, and what it sent."""

    def __init__(self, behaviour: Behaviour = Behaviour(pooling=1), *, overlapped: bool = True):
        self.engine = ReferenceEngine(behaviour, OPTIONS)
        self.line = EmbeddingLine(self.engine, self._receive, overlapped=overlapped)
        self.received: dict[int, Received] = {}
        self.order: list[int] = []
        self.steps: list[list[tuple[int, ...]]] = []
        self._watch_steps()
        self._thread = threading.Thread(target=self.line.run, daemon=True)

    def _watch_steps(self) -> None:
        embed = self.engine.embed

        def watched(inputs: list[list[int]]) -> object:
            self.steps.append([tuple(tokens) for tokens in inputs])
            return embed(inputs)

        self.engine.embed = watched  # type: ignore[method-assign,assignment]

    def start(self) -> None:
        self._thread.start()

    def submit(self, request_id: int, *texts: list[int]) -> Received:
        received = self.received[request_id] = Received()
        self.line.inbox.put(TextRequest(request_id, map(TextTokens, texts), len(texts)))
        return received

    def close(self) -> None:
        self.line.inbox.put(None)
        self._thread.join(10)
        assert not self._thread.is_alive(), "the line hangs"
        self.engine.close()

    def _receive(self, message: FromRunner) -> None:
        assert isinstance(message, Embedded | Failed)
        received = self.received[message.id]
        assert not received.ended.is_set(), "something came behind the end"
        if isinstance(message, Failed):
            received.error = message.message
            received.ended.set()
            return
        self.order.append(message.id)
        received.vectors += message.vectors
        received.frames += 1
        received.tokens += message.tokens
        received.truncated += message.truncated_tokens
        if message.done:
            received.ended.set()


def text(request: int, number: int, length: int = 3) -> list[int]:
    return [1 + request, 1 + number, *[9] * (length - 2)]


@pytest.fixture
def line() -> Iterator[Line]:
    line = Line()
    yield line
    line.close()


def done(*requests: Received) -> None:
    for request in requests:
        assert request.ended.wait(10)


def test_each_request_gets_its_own_vectors_in_order(line: Line) -> None:
    inputs = {n: [text(n, i, 2 + (i * n) % 30) for i in range(20)] for n in range(1, 5)}
    received = [line.submit(n, *texts) for n, texts in inputs.items()]
    line.start()
    done(*received)
    alone = ReferenceEngine(Behaviour(pooling=1), OPTIONS)
    for request, texts in zip(received, inputs.values(), strict=True):
        assert request.vectors == [alone.embed([tokens]).result()[0] for tokens in texts]
        assert request.tokens == sum(map(len, texts))
        assert len(array("f", request.vectors[0])) == 8
    alone.close()


def test_what_was_cut_is_counted(line: Line) -> None:
    received = line.received[1] = Received()
    texts = [TextTokens(text(1, i), cut=i) for i in range(20)]
    line.line.inbox.put(TextRequest(1, iter(texts), len(texts)))
    line.start()
    done(received)
    assert received.truncated == sum(range(20))


def test_the_sequential_twin_gives_the_same() -> None:
    texts = [text(1, i, 2 + i) for i in range(30)]
    found = []
    for overlapped in (True, False):
        line = Line(overlapped=overlapped)
        request = line.submit(1, *texts)
        line.start()
        done(request)
        line.close()
        found.append((request.vectors, line.steps))
    assert found[0] == found[1]


def test_steps_are_full_and_within_the_limits(line: Line) -> None:
    short = line.submit(1, *[text(1, i) for i in range(20)])
    long = line.submit(2, *[text(2, i, 30) for i in range(4)])
    whole = line.submit(3, text(3, 0, 64))
    line.start()
    done(short, long, whole)
    limits = line.engine.limits
    for step in line.steps:
        assert len(step) <= limits.slots
        assert len(step) == 1 or sum(map(len, step)) <= limits.batch_tokens
    assert len(line.steps) <= 7  # 25 texts, of which the four long ones take half a step each


def test_one_text_does_not_wait_for_a_thousand(line: Line) -> None:
    many = line.submit(1, *[text(1, i % 250) for i in range(1000)])
    one = line.submit(2, text(2, 1))
    line.start()
    done(one)
    assert not many.ended.is_set()
    assert 2 in line.order[:2], "it shares the first step"
    done(many)
    assert len(many.vectors) == 1000


def test_who_comes_while_a_step_computes_is_in_the_next(line: Line) -> None:
    many = line.submit(1, *[text(1, i % 250) for i in range(100)])
    watched = line.engine.embed
    late: list[Received] = []

    def third(inputs: list[list[int]]) -> object:
        handle = watched(inputs)
        if len(line.steps) == 3:
            late.append(line.submit(2, text(2, 1)))
        return handle

    line.engine.embed = third  # type: ignore[method-assign,assignment]
    line.start()
    done(many)
    done(*late)
    assert [tokens[0] for tokens in line.steps[3]].count(3) == 1


def test_clients_get_equal_shares(line: Line) -> None:
    requests = [line.submit(n, *[text(n, i) for i in range(40)]) for n in range(1, 5)]
    line.start()
    done(*requests)
    for step in line.steps[:-1]:
        assert sorted(tokens[0] for tokens in step) == [2, 2, 3, 3, 4, 4, 5, 5]
    assert {len(step) for step in line.steps} == {TEXTS}


def test_a_step_computes_while_the_next_is_tokenized() -> None:
    """The third text is made only when the first step is on its way, and that waits for it."""
    line = Line(Behaviour(pooling=1))
    computing = threading.Event()
    embed = line.engine.embed

    def started(inputs: list[list[int]]) -> object:
        computing.set()
        return embed(inputs)

    line.engine.embed = started  # type: ignore[method-assign,assignment]

    def texts() -> Iterator[TextTokens]:
        yield TextTokens(text(1, 0, 64))  # fills a step
        yield TextTokens(text(1, 1, 64))  # looked at to see that the step is full
        assert computing.wait(10)
        yield TextTokens(text(1, 2))

    received = line.received[1] = Received()
    line.line.inbox.put(TextRequest(1, texts(), 3))
    line.start()
    done(received)
    line.close()
    assert received.error == ""
    assert len(received.vectors) == 3


def test_cancelled_texts_are_not_computed(line: Line) -> None:
    gone = line.submit(1, *[text(1, i % 250) for i in range(500)])
    kept = line.submit(2, *[text(2, i) for i in range(20)])
    line.line.inbox.put(Cancelled(1))
    line.start()
    done(kept)
    assert gone.vectors == []
    assert all(tokens[0] == 3 for step in line.steps for tokens in step)
    assert line.line.active == 0


def test_a_request_may_be_cancelled_while_it_computes() -> None:
    line = Line(Behaviour(pooling=1, compute_us=2000))
    gone = line.submit(1, *[text(1, i % 250) for i in range(2000)])
    line.start()
    while not gone.frames:
        threading.Event().wait(0.001)
    line.line.inbox.put(Cancelled(1))
    after = line.submit(2, text(2, 1))
    done(after)
    line.close()
    assert len(gone.vectors) < 2000
    assert line.line.active == 0


def test_a_text_that_fails_ends_its_request_alone() -> None:
    line = Line(Behaviour(pooling=1, fault="text", fault_step=77))
    good = line.submit(1, *[text(1, i) for i in range(5)])
    bad = line.submit(2, text(2, 1), [77, 1], *[text(2, i) for i in range(200)])
    more = line.submit(3, *[text(3, i) for i in range(5)])
    line.start()
    done(good, bad, more)
    line.close()
    assert "a fault at token 77" in bad.error
    assert len(good.vectors) == len(more.vectors) == 5
    assert line.line.active == 0


def test_a_step_that_fails_once_is_computed_again() -> None:
    line = Line(Behaviour(pooling=1, fault="compute", fault_step=1))
    requests = [line.submit(n, text(n, 1), text(n, 2)) for n in (1, 2)]
    line.start()
    done(*requests)
    line.close()
    assert [len(request.vectors) for request in requests] == [2, 2]
    assert [request.error for request in requests] == ["", ""]


def test_a_text_that_cannot_be_tokenized_ends_its_request_alone(line: Line) -> None:
    def broken() -> Iterator[TextTokens]:
        yield TextTokens(text(1, 0))
        raise ValueError("no such text")

    bad = line.received[1] = Received()
    line.line.inbox.put(TextRequest(1, broken(), 3))
    good = line.submit(2, text(2, 1))
    line.start()
    done(bad, good)
    assert bad.error == "ValueError: no such text"
    assert len(good.vectors) == 1


def test_what_the_engine_refuses_ends_its_request_alone(line: Line) -> None:
    bad = line.submit(1, text(1, 0, 65))
    good = line.submit(2, text(2, 1))
    line.start()
    done(bad, good)
    assert "a text of 65 tokens" in bad.error
    assert len(good.vectors) == 1


def test_closing_finishes_the_step_in_flight() -> None:
    line = Line(Behaviour(pooling=1, compute_us=1000))
    line.submit(1, *[text(1, i % 250) for i in range(1000)])
    line.start()
    line.close()
