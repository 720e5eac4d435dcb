"""Limits filled to the brim, and what goes wrong for one row or a whole step."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lhama.plugins.backend import BackendError, Engine
from lhama.plugins.testing.driver import Driver, Stream, next_row, take
from lhama.plugins.testing.subject import Subject
from lhama.plugins.testing.suite import COUNT, Suite, assert_same, need

FEATURES = {"shift", "copy", "embed", "rank", "media"}


class Ends(Suite):
    """``Limits``, ``Residency``, ``RowResult.error``."""

    def test_limits_are_sane(self, engine: Engine) -> None:
        limits = engine.limits
        assert min(limits.slots, limits.context, limits.batch_tokens, limits.vocab) > 0
        assert limits.token_feed in ("host", "device")
        assert limits.groups > 0
        assert limits.slots % limits.groups == 0
        assert 0 < limits.prompt_share <= 1
        assert limits.features <= FEATURES

    def test_limits_are_what_was_asked_for(self, subject: Subject, engine: Engine) -> None:
        assert engine.limits.slots == subject.options.slots
        assert engine.limits.context >= subject.options.context
        assert engine.limits.batch_tokens <= subject.options.batch

    def test_limits_last(self, engine: Engine, driver: Driver, prompts: list[list[int]]) -> None:
        before = engine.limits
        driver.generate(Stream(0, prompts[0], 2))
        assert engine.limits == before

    def test_residency_is_sane(self, engine: Engine) -> None:
        residency = engine.residency
        assert residency.device
        assert 0 <= residency.device_bytes <= residency.total_bytes
        assert residency.total_bytes > 0
        assert all(isinstance(note, str) for note in residency.notes)

    def test_a_step_may_be_full_of_one_prompt(
        self, engine: Engine, driver: Driver, prompts: list[list[int]]
    ) -> None:
        size = min(engine.limits.batch_tokens, engine.limits.context - 2)
        prompt = (prompts[0] * size)[:size]
        [tokens] = driver.generate(Stream(0, prompt, 2))
        assert len(tokens) == 2

    def test_a_step_may_be_full_of_many_prompts(
        self, engine: Engine, driver: Driver, prompts: list[list[int]]
    ) -> None:
        slots = engine.limits.slots // engine.limits.groups
        size = min(engine.limits.batch_tokens // slots, engine.limits.context - 2)
        streams = [
            Stream(slot, (prompts[slot % len(prompts)] * size)[:size], 2) for slot in range(slots)
        ]
        assert all(len(tokens) == 2 for tokens in driver.generate(*streams))

    def test_a_context_may_be_filled(
        self, engine: Engine, driver: Driver, prompts: list[list[int]]
    ) -> None:
        """The core leaves one place free, as llama.cpp does."""
        size = engine.limits.context - 3
        [tokens] = driver.generate(Stream(0, (prompts[0] * size)[:size], 2))
        assert len(tokens) == 2

    def test_a_full_context_may_be_used_again(
        self, subject: Subject, engine: Engine, driver: Driver, alone: list[Stream]
    ) -> None:
        size = engine.limits.context - 3
        driver.generate(Stream(0, (list(alone[1].prompt) * size)[:size], 2))
        [tokens] = driver.generate(Stream(0, alone[0].prompt, COUNT))
        assert_same(subject, alone[0], tokens)

    def test_all_contexts_may_be_full_at_once(
        self, engine: Engine, driver: Driver, prompts: list[list[int]]
    ) -> None:
        size = engine.limits.context - 3
        slots = engine.limits.slots // engine.limits.groups
        streams = [Stream(slot, (prompts[0] * size)[:size], 2) for slot in range(slots)]
        assert all(len(tokens) == 2 for tokens in driver.generate(*streams))

    # -------------------------------------------------------------------------------------- errors

    @pytest.fixture
    def poisoned(self, subject: Subject) -> Iterator[Engine]:
        need(subject.poisoned is not None, "a model whose logits are not always finite")
        engine = subject.load(subject.poisoned)
        yield engine
        engine.close()

    def test_a_row_that_fails_ends_alone(self, subject: Subject, poisoned: Engine) -> None:
        sick, well = self.sick_and_well(subject, poisoned)
        driver = Driver(poisoned)
        [expected] = driver.generate(well)
        driver.generate(sick, well)
        assert sick.results[0].error
        assert not well.results[0].error
        assert well.tokens == expected

    def test_a_slot_is_sound_again_after_a_row_failed(
        self, subject: Subject, poisoned: Engine
    ) -> None:
        sick, well = self.sick_and_well(subject, poisoned)
        sick.slot = well.slot
        driver = Driver(poisoned)
        [expected] = driver.generate(well)
        driver.generate(sick)
        assert sick.results[0].error
        assert driver.generate(well) == [expected]

    def sick_and_well(self, subject: Subject, engine: Engine) -> tuple[Stream, Stream]:
        """A sequence that fails at once, and one that does not, in two slots."""
        prompts = [
            engine.tokenizer.encode(text, add_special=True, parse_special=True)
            for text in (subject.poison, subject.prompts[1])
        ]
        return Stream(0, prompts[0], 2), Stream(1, prompts[1], 2)

    def test_a_step_beyond_the_batch_is_refused_and_forgotten(
        self, subject: Subject, engine: Engine, driver: Driver, alone: list[Stream]
    ) -> None:
        """The core never plans one; an engine that is given it says so and goes on."""
        size = engine.limits.batch_tokens + 1
        need(size < engine.limits.context, "a context longer than a batch")
        stream = Stream(0, (list(alone[0].prompt) * size)[:size], 1)
        row, trim, admit = driver.first(stream)
        with pytest.raises(BackendError):
            driver.step([row], [trim], [admit])
        [tokens] = driver.generate(Stream(0, alone[0].prompt, COUNT))
        assert_same(subject, alone[0], tokens)

    def test_a_model_that_generates_refuses_to_embed(self, engine: Engine) -> None:
        with pytest.raises(BackendError):
            engine.embed([[1, 2, 3]]).result()

    def test_refusing_to_embed_leaves_generation_alone(
        self, subject: Subject, engine: Engine, driver: Driver, alone: list[Stream]
    ) -> None:
        stream = Stream(0, alone[0].prompt, COUNT)
        row, trim, admit = driver.first(stream)
        take(driver.step([row], [trim], [admit]), [stream])
        with pytest.raises(BackendError):
            engine.embed([[1, 2, 3]]).result()
        while stream.scheduled < COUNT:
            take(driver.step([next_row(stream, 1, known=True)]), [stream])
        assert_same(subject, alone[0], stream.tokens)
