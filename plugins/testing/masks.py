"""Masks that come late: the step computes, the core looks at the last token, then it is drawn."""

from __future__ import annotations

import threading

import pytest

from lhama.plugins.backend import Engine, RowResult, Sampling
from lhama.plugins.testing.driver import GREEDY, Driver, Stream
from lhama.plugins.testing.subject import Subject
from lhama.plugins.testing.suite import Suite, assert_same, need


def mask(vocab: int, *allowed: int) -> bytes:
    """A bit set of the tokens; without any, of all."""
    words = (vocab + 31) // 32
    bits = sum(1 << token for token in set(allowed)) if allowed else (1 << vocab) - 1
    return bits.to_bytes(words * 4, "little")


class Masks(Suite):
    """``StepHandle.supply_masks``."""

    @pytest.fixture(autouse=True)
    def _offered(self, engine: Engine) -> None:
        need(engine.limits.late_mask, "late masks")

    def masked(
        self, driver: Driver, prompt: list[int], bits: bytes, sampling: Sampling = GREEDY
    ) -> RowResult:
        """One token after ``prompt`` under a mask."""
        row, trim, admit = driver.first(Stream(0, prompt, 1, sampling), masked=True)
        [result] = driver.step([row], [trim], [admit], masks={0: bits}).rows
        return result

    def test_one_allowed_token_is_drawn(
        self, engine: Engine, driver: Driver, prompts: list[list[int]]
    ) -> None:
        vocab = engine.limits.vocab
        for token in (0, 31, 32, vocab // 2, vocab - 1):
            assert self.masked(driver, prompts[0], mask(vocab, token)).token == token

    def test_everything_allowed_changes_nothing(
        self, subject: Subject, engine: Engine, driver: Driver, alone: list[Stream]
    ) -> None:
        free = self.masked(driver, list(alone[0].prompt), mask(engine.limits.vocab))
        assert_same(subject, alone[0], [free.token])

    def test_a_forbidden_favourite_is_not_drawn(
        self, engine: Engine, driver: Driver, alone: list[Stream]
    ) -> None:
        vocab, likely = engine.limits.vocab, alone[0].tokens[0]
        others = (token for token in range(vocab) if token != likely)
        assert self.masked(driver, list(alone[0].prompt), mask(vocab, *others)).token != likely

    def test_draws_stay_within_the_mask(
        self, engine: Engine, driver: Driver, prompts: list[list[int]]
    ) -> None:
        allowed = (3, 40, 77)
        for seed in range(4):
            sampling = Sampling(temperature=1.5, seed=seed)
            bits = mask(engine.limits.vocab, *allowed)
            assert self.masked(driver, prompts[0], bits, sampling).token in allowed

    def test_a_mask_is_its_rows_alone(
        self, subject: Subject, engine: Engine, driver: Driver, alone: list[Stream]
    ) -> None:
        bound, free = Stream(0, alone[0].prompt, 1), Stream(1, alone[1].prompt, 1)
        (a, trim_a, admit_a) = driver.first(bound, masked=True)
        (b, trim_b, admit_b) = driver.first(free)
        masks = {0: mask(engine.limits.vocab, 7)}
        result = driver.step([a, b], [trim_a, trim_b], [admit_a, admit_b], masks=masks)
        assert result.rows[0].token == 7
        assert_same(subject, alone[1], [result.rows[1].token])

    def test_a_mask_may_come_from_another_thread(
        self, engine: Engine, driver: Driver, prompts: list[list[int]]
    ) -> None:
        row, trim, admit = driver.first(Stream(0, prompts[0], 1), masked=True)
        flight = driver.start(engine.prepare_next(driver.plan([row], [trim], [admit]), None))
        masks = {0: mask(engine.limits.vocab, 9)}
        thread = threading.Thread(target=flight.handle.supply_masks, args=(masks,))
        thread.start()
        result = flight.handle.result()
        thread.join()
        assert [row.token for row in result.rows] == [9]

    def test_a_row_without_its_mask_has_ended_and_hurts_nobody(
        self, engine: Engine, driver: Driver, prompts: list[list[int]]
    ) -> None:
        (a, trim_a, admit_a) = driver.first(Stream(0, prompts[0], 1), masked=True)
        (b, trim_b, admit_b) = driver.first(Stream(1, prompts[1], 1), masked=True)
        masks = {1: mask(engine.limits.vocab, 5)}
        result = driver.step([a, b], [trim_a, trim_b], [admit_a, admit_b], masks=masks)
        assert [row.token for row in result.rows if row.slot == 1] == [5]

    def test_the_next_sequence_is_free_again(
        self, subject: Subject, engine: Engine, driver: Driver, alone: list[Stream]
    ) -> None:
        self.masked(driver, list(alone[1].prompt), mask(engine.limits.vocab, 7))
        [tokens] = driver.generate(Stream(0, alone[0].prompt, 2))
        assert_same(subject, alone[0], tokens)
