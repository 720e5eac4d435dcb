"""The pipelined orders against their sequential twin, on the reference engine."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import pairwise

import pytest
from lhama_testing_line import ORDERS, Line, Received

from lhama.backends.reference.model import Behaviour
from lhama.daemon.prompt.output import Parsed
from lhama.daemon.runner.pipeline import Order
from lhama.daemon.wire.messages import ToolCall
from lhama.plugins.backend import LoadOptions, Sampling, Shift

SLOW = Behaviour(
    prepare_us=150, compute_us=300, row_us=5, result_us=100, jitter_seed=7, end_after=60
)
OPTIONS = LoadOptions(slots=3, context=96, batch=24)


def alone(text: str, seed: int, **wishes: object) -> Received:
    """What a request gets from a pipeline of its own, one half after the other."""
    line = Line("off", Behaviour(end_after=60), OPTIONS)
    received = line.submit(1, text, sampling=_sampling(seed), **wishes)  # type: ignore[arg-type]
    assert received.ended.wait(10)
    line.close()
    return received


def _sampling(seed: int) -> Sampling:
    return Sampling(temperature=0.8 if seed else 0, seed=seed)


@pytest.mark.parametrize(("order", "groups"), [*((order, 1) for order in ORDERS), ("host", 3)])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_every_request_gets_what_it_gets_alone(order: Order, groups: int, seed: int) -> None:
    """Random arrivals, lengths, stop strings, seeds and cancels, thousands of steps in all."""
    draw = random.Random(seed)
    line = Line(order, replace(SLOW, groups=groups), OPTIONS)
    shared = "".join(draw.choices("abcdefgh ", k=30))
    wishes = []
    for request_id in range(60):
        text = shared[: draw.randint(1, 30)] + "".join(draw.choices("xyz", k=draw.randint(1, 40)))
        wish = {
            "num_predict": draw.choice([1, 2, 3, 20, 90, -1]),
            "stop": draw.choice([[], [], ["e"], ["th", "no"]]),
            "shift": draw.choice([True, False]),
            "num_keep": draw.choice([0, 4]),
        }
        if wish["num_predict"] == -1:
            wish["shift"] = False
        sampling_seed = draw.choice([0, draw.randint(1, 99)])
        received = line.submit(request_id, text, sampling=_sampling(sampling_seed), **wish)
        cancelled = draw.random() < 0.2
        if cancelled:
            received.ended.wait(draw.random() / 50)
            line.cancel(request_id)
        else:
            received.ended.wait(draw.choice([0, 0, 0, 0.02]))
        wishes.append((request_id, text, sampling_seed, wish, cancelled))
    for request_id, text, sampling_seed, wish, cancelled in wishes:
        received = line.received[request_id]
        if cancelled:
            continue
        assert received.ended.wait(30), f"request {request_id} never ended"
        expected = alone(text, sampling_seed, **wish)
        assert (received.text, received.error) == (expected.text, ""), f"request {request_id}"
        assert received.done is not None
        assert expected.done is not None
        assert received.done.reason == expected.done.reason
        assert received.done.eval_tokens == expected.done.eval_tokens
    line.close()
    assert all(received.ends <= 1 for received in line.received.values())
    assert line.batcher.idle


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("num_predict", [1, 2, 3])
def test_short_answers_have_their_exact_length(order: Order, num_predict: int) -> None:
    line = Line(order)
    received = line.submit(1, "hello", num_predict=num_predict)
    assert received.ended.wait(10)
    line.close()
    assert len(received.text) == num_predict
    assert received.done is not None
    assert (received.done.reason, received.done.eval_tokens) == ("length", num_predict)
    rows = sum(len(plan.rows) for plan in line.plans)
    assert rows == num_predict, "no row may be computed beyond the last token"


@pytest.mark.parametrize("order", ORDERS)
def test_streams_share_batches(order: Order) -> None:
    line = Line(order, Behaviour(compute_us=500), LoadOptions(slots=8, context=256, batch=512))
    streams = [line.submit(n, f"stream {n}", num_predict=50) for n in range(8)]
    assert all(stream.ended.wait(10) for stream in streams)
    line.close()
    sizes = [len(plan.rows) for plan in line.plans]
    assert max(sizes) == 8
    assert sum(sizes) / len(sizes) > 6


@pytest.mark.parametrize("order", ORDERS)
def test_a_long_prompt_does_not_stop_the_others(order: Order) -> None:
    """Chunked prefill: while a prompt is read, answers keep coming."""
    line = Line(order, Behaviour(compute_us=200), LoadOptions(slots=2, context=1000, batch=64))
    talker = line.submit(1, "hi", num_predict=200)
    talker.ended.wait(0.02)
    reader = line.submit(2, "x" * 600, num_predict=5)
    assert talker.ended.wait(10)
    assert reader.ended.wait(10)
    line.close()
    mixed = [plan for plan in line.plans if len(plan.rows) == 2 and len(plan.rows[1].tokens) > 1]
    assert len(mixed) > 10
    assert all(len(plan.rows[1].tokens) <= 64 // 4 for plan in mixed)


@pytest.mark.parametrize("order", ORDERS)
def test_a_common_prefix_is_computed_once(order: Order) -> None:
    line = Line(order, options=LoadOptions(slots=2, context=512, batch=512))
    system = "you are a helpful assistant. " * 8
    first = line.submit(1, system + "one", num_predict=3)
    assert first.ended.wait(10)
    second = line.submit(2, system + "two", num_predict=3)
    assert second.ended.wait(10)
    line.close()
    assert first.done is not None
    assert second.done is not None
    assert first.done.cached_tokens == 0
    assert second.done.cached_tokens >= len(system)
    assert second.done.prompt_tokens == len(system) + 3


@pytest.mark.parametrize("order", ORDERS)
def test_the_context_moves_on(order: Order) -> None:
    line = Line(order, options=LoadOptions(slots=1, context=64, batch=64))
    received = line.submit(1, "once upon a time", num_predict=200, num_keep=4)
    assert received.ended.wait(10)
    line.close()
    assert len(received.text) == 200
    assert received.done is not None
    assert received.done.reason == "length"


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(
    ("num_keep", "kept", "dropped"), [(4, 4, 125), (0, 0, 127), (100, 100, 77), (10**6, 252, 1)]
)
def test_the_context_moves_on_as_in_llama_cpps_server(
    order: Order, num_keep: int, kept: int, dropped: int
) -> None:
    """With one place left, half of what is not kept goes; four places are never kept."""
    line = Line(order, options=LoadOptions(slots=1, context=256, batch=64))
    received = line.submit(1, "once upon a time", num_predict=260, num_keep=num_keep)
    assert received.ended.wait(20)
    line.close()
    first = next((plan, op) for plan in line.plans for op in plan.kv if isinstance(op, Shift))
    assert first[1] == Shift(0, kept, dropped)
    assert first[0].rows[0].position == 255 - dropped


@pytest.mark.parametrize("order", ORDERS)
def test_a_full_context_ends_an_answer_that_may_not_shift(order: Order) -> None:
    line = Line(order, options=LoadOptions(slots=1, context=64, batch=64))
    received = line.submit(1, "0123456789", num_predict=-1, shift=False)
    assert received.ended.wait(10)
    line.close()
    assert received.done is not None
    assert received.done.reason == "length"
    assert 10 + received.done.eval_tokens == 64, "as many as llama.cpp's server gives"


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("fault", ["prepare", "compute", "row"])
def test_a_fault_ends_requests_in_flight_and_no_more(order: Order, fault: str) -> None:
    line = Line(order, Behaviour(compute_us=300, fault=fault, fault_step=5))
    hit = [line.submit(n, f"before {n}", num_predict=30) for n in range(3)]
    assert all(received.ended.wait(10) for received in hit)
    after = line.submit(9, "after", num_predict=30)
    assert after.ended.wait(10)
    line.close()
    failed = [received for received in hit if received.error]
    assert len(failed) == (1 if fault == "row" else 3)
    assert all(received.ends == 1 for received in [*hit, after])
    assert (after.error, len(after.text)) == ("", 30)


@pytest.mark.parametrize("order", ORDERS)
def test_a_slot_given_to_another_in_mid_step_keeps_them_apart(order: Order) -> None:
    """Cancel and admit into the one slot over and over: stale results must never show."""
    line = Line(order, Behaviour(compute_us=400, jitter_seed=3), LoadOptions(1, 256, 64))
    expected = alone("the real one", 0, num_predict=20).text
    for n in range(0, 40, 2):
        line.submit(n, f"victim {n}", num_predict=100).ended.wait(0.002)
        line.cancel(n)
        real = line.submit(n + 1, "the real one", num_predict=20)
        assert real.ended.wait(10)
        assert real.text == expected
    line.close()


@pytest.mark.parametrize("order", ORDERS)
def test_cancelled_requests_say_nothing_more(order: Order) -> None:
    line = Line(order, Behaviour(compute_us=300))
    gone = line.submit(1, "gone", num_predict=1000)
    gone.ended.wait(0.01)
    line.cancel(1)
    other = line.submit(2, "stays", num_predict=10)
    assert other.ended.wait(10)
    line.close()
    assert gone.ends == 0
    assert line.batcher.idle


@pytest.mark.parametrize("order", ORDERS)
def test_an_answer_that_cannot_be_sent_ends_alone(order: Order) -> None:
    """A tool call with a number that fits no wire, in the middle of two streams."""
    line = Line(order, Behaviour(compute_us=300))
    good = line.submit(1, "good", num_predict=30)
    bad = line.submit(2, "bad", num_predict=30)
    call = ToolCall("f", {"x": 1 << 70})
    line.answers[2]._parser.feed = lambda text: Parsed(tool_calls=[call])  # type: ignore[method-assign]
    assert good.ended.wait(10)
    assert bad.ended.wait(10)
    line.close()
    assert (good.error, len(good.text)) == ("", 30)
    assert "unreadable" in bad.error
    assert (good.ends, bad.ends) == (1, 1)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("num_keep", [-3, -1, 0, 500])
def test_whatever_is_kept_the_context_is_respected(order: Order, num_keep: int) -> None:
    line = Line(order, options=LoadOptions(slots=1, context=64, batch=64))
    received = line.submit(1, "once upon a time", num_predict=150, num_keep=num_keep)
    assert received.ended.wait(10)
    line.close()
    assert (received.error, len(received.text)) == ("", 150)


def test_groups_of_slots_compute_in_turn_and_overlap() -> None:
    """A step of one group is enqueued before the other's result is read."""
    line = Line("host", Behaviour(compute_us=2000, groups=2), LoadOptions(slots=4, context=256))
    for request_id in range(4):
        line.submit(request_id, f"{request_id} please", num_predict=20)
    assert all(received.ended.wait(10) for received in line.received.values())
    line.close()
    decoding = [plan for plan in line.plans if len(plan.rows) == 2 and not plan.admits]
    turns = [plan.group for plan in decoding]
    assert len(turns) > 20
    changes = sum(a != b for a, b in pairwise(turns))
    assert changes > 0.9 * (len(turns) - 1)
    spans = [span for span in line.pipeline.spans.latest(100) if span.rows == 2]
    early = [after.times[2] < before.times[5] for before, after in pairwise(spans)]
    assert sum(early) > len(early) / 2, "enqueued before the step before it was read"


def test_one_request_goes_on_in_its_group_alone() -> None:
    line = Line("host", Behaviour(groups=2), LoadOptions(slots=4, context=256))
    received = line.submit(1, "alone", num_predict=30)
    assert received.ended.wait(10)
    line.close()
    assert received.text == alone_on("alone", 30)
    assert {plan.group for plan in line.plans} == {0}


def alone_on(text: str, tokens: int) -> str:
    line = Line("off", Behaviour(), LoadOptions(slots=4, context=256))
    received = line.submit(1, text, num_predict=tokens)
    assert received.ended.wait(10)
    line.close()
    return received.text
