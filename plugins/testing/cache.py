"""What ``KvOp`` promises, held against computing everything anew."""

from __future__ import annotations

from lhama.plugins.backend import Copy, Engine, Shift, Trim
from lhama.plugins.testing.driver import Driver, Stream
from lhama.plugins.testing.subject import Subject
from lhama.plugins.testing.suite import COUNT, Suite, assert_same, need


class Cache(Suite):
    """Trim, copy and shift."""

    def test_a_kept_beginning_is_as_good_as_a_computed_one(
        self, subject: Subject, driver: Driver, alone: list[Stream]
    ) -> None:
        prompt = alone[1].prompt
        driver.generate(Stream(0, [*prompt[:4], *alone[0].prompt], 2))
        [tokens] = driver.generate(Stream(0, prompt, COUNT, start=4))
        assert_same(subject, alone[1], tokens)

    def test_all_but_the_last_token_may_be_kept(
        self, subject: Subject, driver: Driver, alone: list[Stream]
    ) -> None:
        prompt = alone[1].prompt
        driver.generate(Stream(0, prompt, 2))
        [tokens] = driver.generate(Stream(0, prompt, COUNT, start=len(prompt) - 1))
        assert_same(subject, alone[1], tokens)

    def test_trimming_to_nothing_forgets_everything(
        self, subject: Subject, driver: Driver, alone: list[Stream]
    ) -> None:
        driver.generate(Stream(0, alone[0].prompt, COUNT))
        [tokens] = driver.generate(Stream(0, alone[1].prompt, COUNT))
        assert_same(subject, alone[1], tokens)

    def test_trimming_an_empty_slot_is_nothing(
        self, subject: Subject, driver: Driver, alone: list[Stream]
    ) -> None:
        stream = Stream(0, alone[0].prompt, COUNT)
        [tokens] = driver.generate(stream, kv=[Trim(0, 0), Trim(0, 0), Trim(1, 0)])
        assert_same(subject, alone[0], tokens)

    def test_trimming_one_slot_leaves_the_others(
        self, subject: Subject, driver: Driver, alone: list[Stream]
    ) -> None:
        prompt = alone[0].prompt
        driver.generate(Stream(0, prompt, 1), Stream(1, alone[1].prompt, 1))
        kept = len(prompt) - 1
        stream = Stream(0, prompt, COUNT, start=kept)
        [tokens] = driver.generate(stream, kv=[Trim(1, 0), Trim(0, kept)])
        assert_same(subject, alone[0], tokens)

    def test_a_cache_lasts_while_others_work(
        self, subject: Subject, driver: Driver, alone: list[Stream]
    ) -> None:
        prompt = alone[0].prompt
        driver.generate(Stream(0, prompt, 1))
        driver.generate(Stream(1, alone[1].prompt, COUNT))
        [tokens] = driver.generate(Stream(0, prompt, COUNT, start=len(prompt) - 1))
        assert_same(subject, alone[0], tokens)

    def test_a_copy_is_as_good_as_computing(
        self, subject: Subject, engine: Engine, driver: Driver, alone: list[Stream]
    ) -> None:
        need("copy" in engine.limits.features, "the feature 'copy'")
        prompt = alone[1].prompt
        driver.generate(Stream(0, prompt, 1))
        [tokens] = driver.generate(Stream(1, prompt, COUNT, start=4), kv=[Copy(0, 1, 4)])
        assert_same(subject, alone[1], tokens)

    def test_a_copy_leaves_its_source(
        self, subject: Subject, engine: Engine, driver: Driver, alone: list[Stream]
    ) -> None:
        need("copy" in engine.limits.features, "the feature 'copy'")
        prompt, kept = alone[1].prompt, len(alone[1].prompt) - 1
        driver.generate(Stream(0, prompt, 1))
        both = [Stream(0, prompt, COUNT, start=kept), Stream(1, prompt, COUNT, start=4)]
        for tokens in driver.generate(*both, kv=[Copy(0, 1, 4), Trim(0, kept)]):
            assert_same(subject, alone[1], tokens)

    def test_a_copy_replaces_what_the_target_held(
        self, subject: Subject, engine: Engine, driver: Driver, alone: list[Stream]
    ) -> None:
        need("copy" in engine.limits.features, "the feature 'copy'")
        driver.generate(Stream(0, alone[1].prompt, 1), Stream(1, alone[0].prompt, COUNT))
        stream = Stream(1, alone[1].prompt, COUNT, start=4)
        [tokens] = driver.generate(stream, kv=[Copy(0, 1, 4)])
        assert_same(subject, alone[1], tokens)

    def test_trimming_a_source_leaves_its_copy(
        self, subject: Subject, engine: Engine, driver: Driver, alone: list[Stream]
    ) -> None:
        need("copy" in engine.limits.features, "the feature 'copy'")
        driver.generate(Stream(0, alone[1].prompt, 1))
        stream = Stream(1, alone[1].prompt, COUNT, start=5)
        [tokens] = driver.generate(stream, kv=[Copy(0, 1, 5), Trim(0, 0)])
        assert_same(subject, alone[1], tokens)

    def test_a_shifted_cache_is_the_same_in_every_slot(
        self, subject: Subject, engine: Engine, driver: Driver, prompts: list[list[int]]
    ) -> None:
        """What it gives is the model's affair: its values saw the tokens that were dropped."""
        need("shift" in engine.limits.features, "the feature 'shift'")
        answers = []
        for slot in (0, 1):
            driver.generate(Stream(slot, prompts[0], 1))
            kept = len(prompts[0]) - 2
            shifted = [*prompts[0][:1], *prompts[0][3:], prompts[0][0]]
            stream = Stream(slot, shifted, COUNT, start=kept, logprobs=2 if subject.drift else -1)
            driver.generate(stream, order="off", kv=[Shift(slot, 1, 2)])
            answers.append(stream)
        assert_same(subject, answers[0], answers[1].tokens)

    def test_a_shift_leaves_a_copy(
        self, subject: Subject, engine: Engine, driver: Driver, alone: list[Stream]
    ) -> None:
        need({"shift", "copy"} <= engine.limits.features, "the features 'shift' and 'copy'")
        prompt, kept = alone[1].prompt, len(alone[1].prompt) - 1
        driver.generate(Stream(0, prompt, 1))
        stream = Stream(1, prompt, COUNT, start=kept)
        [tokens] = driver.generate(stream, kv=[Copy(0, 1, kept), Shift(0, 1, 2)])
        assert_same(subject, alone[1], tokens)
