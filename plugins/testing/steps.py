"""Steps of every shape: prompts whole and in pieces, alone and mixed, in any slot and any order."""

from __future__ import annotations

import pytest

from lhama.plugins.backend import Engine, Row, StepResult
from lhama.plugins.testing.driver import Driver, Order, Stream, next_row, take
from lhama.plugins.testing.subject import Subject
from lhama.plugins.testing.suite import COUNT, Suite, assert_same, need


class Steps(Suite):
    """Prompts in, tokens out."""

    def test_tokens_are_of_the_vocabulary(self, engine: Engine, alone: list[Stream]) -> None:
        for stream in alone:
            assert len(stream.tokens) == COUNT
            assert all(0 <= token < engine.limits.vocab for token in stream.tokens)

    def test_different_prompts_get_different_answers(self, alone: list[Stream]) -> None:
        assert len({tuple(stream.tokens) for stream in alone}) > 1

    def test_asking_again_gives_the_same(self, driver: Driver, alone: list[Stream]) -> None:
        again = Stream(0, alone[0].prompt, COUNT)
        assert driver.generate(again, order="off") == [alone[0].tokens]

    @pytest.mark.parametrize("order", ["off", "host", "device"])
    def test_every_order_gives_the_same(
        self, subject: Subject, engine: Engine, driver: Driver, alone: list[Stream], order: Order
    ) -> None:
        need(order in ("off", engine.limits.token_feed), f"the {order} feed")
        for expected in alone:
            [tokens] = driver.generate(Stream(0, expected.prompt, COUNT), order=order)
            assert_same(subject, expected, tokens)

    @pytest.mark.parametrize("chunk", [1, 3, 5])
    def test_a_prompt_in_pieces_gives_the_same(
        self, subject: Subject, driver: Driver, alone: list[Stream], chunk: int
    ) -> None:
        [tokens] = driver.generate(Stream(0, alone[1].prompt, COUNT), chunk=chunk)
        assert_same(subject, alone[1], tokens)

    def test_every_slot_gives_the_same(
        self, subject: Subject, driver: Driver, alone: list[Stream]
    ) -> None:
        for slot in range(driver.engine.limits.slots):
            [tokens] = driver.generate(Stream(slot, alone[0].prompt, COUNT))
            assert_same(subject, alone[0], tokens)

    def test_a_full_house_gets_what_each_gets_alone(
        self, subject: Subject, driver: Driver, alone: list[Stream]
    ) -> None:
        group = driver.engine.limits.slots // driver.engine.limits.groups
        expected = [alone[slot % len(alone)] for slot in range(group)]
        streams = [Stream(slot, one.prompt, COUNT) for slot, one in enumerate(expected)]
        for one, tokens in zip(expected, driver.generate(*streams), strict=True):
            assert_same(subject, one, tokens)

    def test_scattered_slots_get_what_each_gets_alone(
        self, subject: Subject, driver: Driver, alone: list[Stream]
    ) -> None:
        last = driver.engine.limits.slots // driver.engine.limits.groups - 1
        streams = [Stream(last, alone[0].prompt, COUNT), Stream(0, alone[1].prompt, COUNT)]
        for one, tokens in zip(alone, driver.generate(*streams), strict=False):
            assert_same(subject, one, tokens)

    def test_prompts_and_tokens_share_a_step(
        self, subject: Subject, driver: Driver, alone: list[Stream]
    ) -> None:
        """A sequence that generates while another one's prompt comes in pieces beside it."""
        old, new = Stream(0, alone[0].prompt, COUNT), Stream(1, alone[1].prompt, 2)
        row, trim, admit = driver.first(old)
        take(driver.step([row], [trim], [admit]), [old])
        _, trim, admit = driver.first(new)
        new.position = new.scheduled = 0
        kv, admits = [trim], [admit]
        while old.scheduled < COUNT:
            rows = [next_row(old, 1, known=True)]
            if new.scheduled < new.count:
                rows.append(next_row(new, 4, known=True))
            take(driver.step(rows, kv, admits), [old, new])
            kv, admits = [], []
        assert_same(subject, alone[0], old.tokens)
        assert_same(subject, alone[1], new.tokens)

    def test_sequences_of_different_lengths_end_one_by_one(
        self, subject: Subject, driver: Driver, alone: list[Stream]
    ) -> None:
        streams = [Stream(slot, one.prompt, COUNT - slot) for slot, one in enumerate(alone)]
        for one, tokens in zip(alone, driver.generate(*streams), strict=True):
            assert_same(subject, one, tokens)

    def test_a_row_that_does_not_sample_has_no_result(
        self, driver: Driver, prompts: list[list[int]]
    ) -> None:
        first, second = Stream(0, prompts[0], 1), Stream(1, prompts[1], 1)
        (a, trim_a, admit_a), (b, trim_b, admit_b) = driver.first(first), driver.first(second)
        silent = Row(a.slot, a.epoch, a.position, a.tokens[:-1], sample=False)
        result = driver.step([silent, b], [trim_a, trim_b], [admit_a, admit_b])
        assert [(row.slot, row.epoch) for row in result.rows] == [(1, b.epoch)]

    def test_results_come_in_the_order_of_the_plan(
        self, driver: Driver, prompts: list[list[int]]
    ) -> None:
        firsts = [driver.first(Stream(slot, prompt, 1)) for slot, prompt in enumerate(prompts)]
        rows, kv, admits = (list(part) for part in zip(*firsts, strict=True))
        result = driver.step(rows, kv, admits)
        assert [(r.slot, r.epoch) for r in result.rows] == [(r.slot, r.epoch) for r in rows]
        assert not any(row.error for row in result.rows)

    def test_steps_tell_their_time(self, driver: Driver, prompts: list[list[int]]) -> None:
        row, trim, admit = driver.first(Stream(0, prompts[0], 1))
        result = driver.step([row], [trim], [admit])
        assert isinstance(result, StepResult)
        assert result.compute_ns >= 0
        assert result.idle_ns >= -1

    def test_the_prepared_step_has_its_plan(
        self, engine: Engine, driver: Driver, prompts: list[list[int]]
    ) -> None:
        row, trim, admit = driver.first(Stream(0, prompts[0], 1))
        plan = driver.plan([row], [trim], [admit])
        prepared = engine.prepare_next(plan, None)
        assert prepared.plan == plan
        driver.start(prepared).handle.result()

    def test_groups_compute_side_by_side(
        self, subject: Subject, engine: Engine, driver: Driver, alone: list[Stream]
    ) -> None:
        """A step of another group is enqueued while one is in flight."""
        groups = engine.limits.groups
        need(groups > 1, "groups of slots")
        size = engine.limits.slots // groups
        streams = [Stream(n * size, alone[n % len(alone)].prompt, COUNT) for n in range(groups)]
        handles = []
        for stream in streams:
            row, trim, admit = driver.first(stream)
            prepared = engine.prepare_next(driver.plan([row], [trim], [admit]), None)
            handles.append(driver.start(prepared).handle)
            if len(handles) > 1:
                take(handles.pop(0).result(), streams)
        while handles:
            take(handles.pop(0).result(), streams)
        for n, stream in enumerate(streams):
            while stream.scheduled < COUNT:
                take(driver.step([next_row(stream, 1, known=True)]), streams)
            assert_same(subject, alone[n % len(alone)], stream.tokens)
