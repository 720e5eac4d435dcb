"""Draws: seeds, greedy, the chain's parameters, penalties, and log-probabilities."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from lhama.plugins.backend import Engine, Sampling
from lhama.plugins.testing.driver import GREEDY, Driver, Stream
from lhama.plugins.testing.subject import Subject
from lhama.plugins.testing.suite import COUNT, Suite, assert_same, need

SEEDED = Sampling(temperature=1.0, seed=1234)
WILD = Sampling(temperature=2.0, top_k=0, top_p=1.0, seed=1)


class Draws(Suite):
    """``Sampling`` and ``logprobs``."""

    def test_a_seed_repeats(self, driver: Driver, prompts: list[list[int]]) -> None:
        first, second = (driver.generate(Stream(0, prompts[0], COUNT, SEEDED)) for _ in range(2))
        assert first == second

    def test_a_seed_gives_the_same_in_every_order(
        self, engine: Engine, driver: Driver, prompts: list[list[int]]
    ) -> None:
        stream = Stream(0, prompts[0], COUNT, SEEDED)
        assert driver.generate(stream, order="off") == driver.generate(stream)

    def test_a_seed_does_not_depend_on_its_slot(
        self, driver: Driver, prompts: list[list[int]]
    ) -> None:
        first, second = (
            driver.generate(Stream(slot, prompts[0], COUNT, SEEDED)) for slot in (0, 1)
        )
        assert first == second

    def test_a_seed_does_not_depend_on_company(
        self, subject: Subject, driver: Driver, prompts: list[list[int]]
    ) -> None:
        need(not subject.drift, "an engine without drift")
        [expected] = driver.generate(Stream(0, prompts[0], COUNT, SEEDED))
        company = Stream(0, prompts[1], COUNT, WILD)
        tokens = driver.generate(company, Stream(1, prompts[0], COUNT, SEEDED))
        assert tokens[1] == expected

    def test_a_seed_does_not_depend_on_how_the_prompt_came(
        self, subject: Subject, driver: Driver, prompts: list[list[int]]
    ) -> None:
        need(not subject.drift, "an engine without drift")
        whole = driver.generate(Stream(0, prompts[0], COUNT, SEEDED))
        pieces = driver.generate(Stream(0, prompts[0], COUNT, SEEDED), chunk=2)
        assert whole == pieces

    def test_seeds_matter(self, driver: Driver, prompts: list[list[int]]) -> None:
        answers = {
            tuple(driver.generate(Stream(0, prompts[0], COUNT, replace(WILD, seed=seed)))[0])
            for seed in (1, 2, 3)
        }
        assert len(answers) > 1

    def test_greedy_ignores_the_seed(
        self, subject: Subject, driver: Driver, alone: list[Stream]
    ) -> None:
        sampling = Sampling(temperature=0, seed=987)
        [tokens] = driver.generate(Stream(0, alone[0].prompt, COUNT, sampling))
        assert_same(subject, alone[0], tokens)

    @pytest.mark.parametrize(
        "sampling",
        [
            Sampling(temperature=1.0, top_k=1, seed=5),
            Sampling(temperature=1.0, top_k=0, top_p=1e-6, seed=5),
            Sampling(temperature=1.0, top_k=0, top_p=1.0, min_p=1.0, seed=5),
        ],
        ids=["top_k", "top_p", "min_p"],
    )
    def test_a_narrow_choice_is_greedy(
        self, subject: Subject, driver: Driver, alone: list[Stream], sampling: Sampling
    ) -> None:
        [tokens] = driver.generate(Stream(0, alone[0].prompt, COUNT, sampling))
        assert_same(subject, alone[0], tokens)

    def test_a_neighbours_sampling_is_its_own(
        self, subject: Subject, driver: Driver, alone: list[Stream]
    ) -> None:
        wild, greedy = Stream(0, alone[1].prompt, COUNT, WILD), Stream(1, alone[0].prompt, COUNT)
        assert_same(subject, alone[0], driver.generate(wild, greedy)[1])

    def test_a_slots_sampling_goes_with_its_sequence(
        self, subject: Subject, driver: Driver, alone: list[Stream]
    ) -> None:
        driver.generate(Stream(0, alone[1].prompt, COUNT, WILD))
        [tokens] = driver.generate(Stream(0, alone[0].prompt, COUNT))
        assert_same(subject, alone[0], tokens)

    def test_penalties_look_back_on_what_was_drawn(
        self, driver: Driver, prompts: list[list[int]]
    ) -> None:
        sampling = replace(GREEDY, presence_penalty=1000.0)
        [tokens] = driver.generate(Stream(0, prompts[0], 4, sampling))
        assert len(set(tokens)) == 4

    def test_penalties_look_back_on_the_prompt(self, driver: Driver, alone: list[Stream]) -> None:
        """The token that comes next by itself is in the prompt: it does not come again."""
        prompt = [alone[0].tokens[0], *alone[0].prompt]
        [[likely]] = driver.generate(Stream(0, prompt, 1))
        sampling = replace(GREEDY, presence_penalty=1000.0)
        [[other]] = driver.generate(Stream(0, [likely, *prompt], 1, sampling))
        assert other not in (likely, *prompt)

    # ---------------------------------------------------------------------------- log-probabilities

    def test_logprobs_only_where_asked(self, alone: list[Stream], driver: Driver) -> None:
        silent = Stream(0, alone[0].prompt, 2)
        driver.generate(silent)
        assert all(row.logprob is None and row.top == () for row in silent.results)

    def test_a_tokens_own_logprob(self, driver: Driver, prompts: list[list[int]]) -> None:
        stream = Stream(0, prompts[0], 2, logprobs=0)
        driver.generate(stream)
        for row in stream.results:
            assert row.logprob is not None
            assert row.logprob <= 0
            assert row.top == ()

    def test_alternatives_descend_and_the_greedy_token_leads(
        self, driver: Driver, prompts: list[list[int]]
    ) -> None:
        stream = Stream(0, prompts[0], 3, logprobs=5)
        driver.generate(stream)
        for row in stream.results:
            assert row.logprob is not None
            values = [value for _, value in row.top]
            assert len(row.top) == 5
            assert values == sorted(values, reverse=True)
            assert row.logprob == pytest.approx(values[0], abs=1e-4)
            assert sum(math.exp(value) for value in values) <= 1 + 1e-4

    def test_asking_for_logprobs_changes_nothing(
        self, subject: Subject, driver: Driver, alone: list[Stream]
    ) -> None:
        [tokens] = driver.generate(Stream(0, alone[0].prompt, COUNT, logprobs=3))
        assert_same(subject, alone[0], tokens)

    def test_logprobs_are_of_the_raw_logits(self, driver: Driver, prompts: list[list[int]]) -> None:
        """Neither temperature nor a narrow choice shows in them."""
        tops = []
        for sampling in (GREEDY, Sampling(temperature=0.3, top_k=2, seed=3)):
            stream = Stream(0, prompts[0], 1, sampling, logprobs=3)
            driver.generate(stream)
            tops.append(stream.results[0].top)
        assert [token for token, _ in tops[0]] == [token for token, _ in tops[1]]
        for (_, first), (_, second) in zip(*tops, strict=True):
            assert first == pytest.approx(second, abs=1e-3)

    def test_a_neighbours_logprobs_are_its_own(
        self, driver: Driver, prompts: list[list[int]]
    ) -> None:
        asks, silent = Stream(0, prompts[0], 1, logprobs=2), Stream(1, prompts[1], 1)
        driver.generate(asks, silent)
        assert len(asks.results[0].top) == 2
        assert silent.results[0].top == ()
