"""Which order a runner keeps where the model and the core share the processor."""

from __future__ import annotations

from itertools import pairwise

from lhama_testing_line import Line

from lhama.backends.reference.model import Behaviour
from lhama.daemon.runner.pipeline import Order
from lhama.daemon.runner.trial import BLOCK, Trial
from lhama.plugins.backend import LoadOptions


def _run(trial: Trial, times: dict[Order, int], steps: int, rows: int = 2) -> list[Order]:
    orders = []
    for _ in range(steps):
        orders.append(trial.order)
        trial.took(rows, times[trial.order])
    return orders


def test_blocks_come_in_turn_and_the_faster_order_stays() -> None:
    trial = Trial("host")
    orders = _run(trial, {"host": 110, "off": 100}, 8 * BLOCK)
    assert orders[: 4 * BLOCK] == [*["host"] * BLOCK, *["off"] * (2 * BLOCK), *["host"] * BLOCK]
    assert set(orders[4 * BLOCK :]) == {"off"}
    assert "turned off" in trial.verdict
    assert "1.100 times" in trial.verdict


def test_overlapping_stays_where_it_is_as_good() -> None:
    trial = Trial("host")
    orders = _run(trial, {"host": 100, "off": 100}, 8 * BLOCK)
    assert set(orders[4 * BLOCK :]) == {"host"}
    assert "kept" in trial.verdict


def test_steps_of_other_sizes_are_not_compared() -> None:
    """Long steps of many rows fall into one order's blocks by chance."""
    trial = Trial("host")
    for n in range(8 * BLOCK):
        trial.took(1, 100 if trial.order == "host" else 90)
        if n % 7 == 0:
            trial.took(9, 5000)
    assert trial.order == "off"


def test_a_batch_that_changes_all_the_time_gets_no_verdict() -> None:
    trial = Trial("host")
    for n in range(8 * BLOCK):
        trial.took(n, 100)
    assert trial.verdict == ""


def test_tokens_are_the_same_while_the_pipeline_tries_both() -> None:
    behaviour = Behaviour(compute_us=300, end_after=0)
    texts = []
    for trial in (None, Trial("host")):
        line = Line("host", behaviour, LoadOptions(slots=2, context=512), trial=trial)
        received = [line.submit(n, f"request {n}", num_predict=250) for n in range(2)]
        assert all(one.ended.wait(20) for one in received)
        line.close()
        texts.append([one.text for one in received])
        if trial is not None:
            assert trial.verdict
            flights = [span.times for span in line.pipeline.spans.latest(400)]
            overlapped = [after[0] < before[5] for before, after in pairwise(flights)]
            assert True in overlapped
            assert False in overlapped
    assert texts[0] == texts[1]
