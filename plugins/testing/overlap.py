"""Two steps at once, late tokens, slots that change hands, and sequences that end on the way."""

from __future__ import annotations

from lhama.plugins.backend import DROPPED, Engine, Row, Trim
from lhama.plugins.testing.driver import Driver, Flight, Stream, next_row, take
from lhama.plugins.testing.subject import Subject
from lhama.plugins.testing.suite import COUNT, Suite, assert_same, need


def begin(driver: Driver, *streams: Stream) -> Flight:
    """Start a step of the streams' whole prompts."""
    rows, kv, admits = (
        list(part) for part in zip(*(driver.first(stream) for stream in streams), strict=True)
    )
    return driver.start(driver.engine.prepare_next(driver.plan(rows, kv, admits), None))


def go_on(driver: Driver, stream: Stream) -> None:
    """Run a stream to its end, one half after the other."""
    while stream.scheduled < stream.count:
        take(driver.step([next_row(stream, 1, known=True)]), [stream])


class Overlap(Suite):
    """``prepare_next`` while a step computes; ``DROPPED``; epochs."""

    def test_preparing_while_a_step_computes_leaves_it_alone(
        self, subject: Subject, engine: Engine, driver: Driver, alone: list[Stream]
    ) -> None:
        """Bigger and smaller steps are prepared meanwhile, and some of them never computed."""
        stream, other = Stream(0, alone[0].prompt, COUNT), Stream(1, alone[1].prompt, 1)
        flight = begin(driver, stream)
        row, trim, admit = driver.first(other)
        engine.prepare_next(driver.plan([row], [trim], [admit]), flight.prepared)
        take(flight.handle.result(), [stream])
        go_on(driver, stream)
        assert_same(subject, alone[0], stream.tokens)

    def test_a_prepared_step_may_be_forgotten(
        self, subject: Subject, engine: Engine, driver: Driver, alone: list[Stream]
    ) -> None:
        forgotten, stream = Stream(0, alone[0].prompt, 1), Stream(0, alone[1].prompt, COUNT)
        row, trim, admit = driver.first(forgotten)
        engine.prepare_next(driver.plan([row], [trim], [admit]), None)
        [tokens] = driver.generate(stream)
        assert_same(subject, alone[1], tokens)

    def test_two_steps_keep_their_own_batches(
        self, subject: Subject, engine: Engine, driver: Driver, alone: list[Stream]
    ) -> None:
        """The second step is another sequence's prompt, prepared while the first computes."""
        first, second = Stream(0, alone[0].prompt, COUNT), Stream(1, alone[1].prompt, COUNT)
        flight = begin(driver, first)
        row, trim, admit = driver.first(second)
        prepared = engine.prepare_next(driver.plan([row], [trim], [admit]), flight.prepared)
        if engine.limits.token_feed == "host":
            take(flight.handle.result(), [first])
        following = driver.start(prepared)
        if engine.limits.token_feed == "device":
            take(flight.handle.result(), [first])
        take(following.handle.result(), [second])
        go_on(driver, first)
        go_on(driver, second)
        assert_same(subject, alone[0], first.tokens)
        assert_same(subject, alone[1], second.tokens)

    def test_previous_may_be_given_or_not(
        self, subject: Subject, engine: Engine, driver: Driver, alone: list[Stream]
    ) -> None:
        stream = Stream(0, alone[0].prompt, 3)
        flight = begin(driver, stream)
        take(flight.handle.result(), [stream])
        for previous in (flight.prepared, None):
            plan = driver.plan([next_row(stream, 1, known=True)])
            step = driver.start(engine.prepare_next(plan, previous))
            take(step.handle.result(), [stream])
        assert_same(subject, alone[0], stream.tokens)

    def test_a_known_token_is_as_good_as_one_that_is_fed(
        self, subject: Subject, engine: Engine, driver: Driver, alone: list[Stream]
    ) -> None:
        stream = Stream(0, alone[0].prompt, COUNT)
        take(begin(driver, stream).handle.result(), [stream])
        while stream.scheduled < COUNT:
            known = stream.scheduled % 2 == 0
            row = next_row(stream, 1, known=known)
            fed = 0 if known else stream.tokens[-1]
            take(driver.step([row], tokens=[fed]), [stream])
        assert_same(subject, alone[0], stream.tokens)

    def test_the_device_feeds_a_step_before_its_result_is_read(
        self, subject: Subject, engine: Engine, driver: Driver, alone: list[Stream]
    ) -> None:
        need(engine.limits.token_feed == "device", "token_feed 'device'")
        stream = Stream(0, alone[0].prompt, 2)
        first = begin(driver, stream)
        plan = driver.plan([next_row(stream, 1)])
        second = driver.start(engine.prepare_next(plan, first.prepared))
        take(first.handle.result(), [stream])
        take(second.handle.result(), [stream])
        assert_same(subject, alone[0], stream.tokens)

    def test_the_host_feeds_a_step_prepared_before_its_token_was_known(
        self, subject: Subject, engine: Engine, driver: Driver, alone: list[Stream]
    ) -> None:
        need(engine.limits.token_feed == "host", "token_feed 'host'")
        stream = Stream(0, alone[0].prompt, 2)
        first = begin(driver, stream)
        plan = driver.plan([next_row(stream, 1)])
        prepared = engine.prepare_next(plan, first.prepared)
        take(first.handle.result(), [stream])
        take(driver.start(prepared, stream.tokens).handle.result(), [stream])
        assert_same(subject, alone[0], stream.tokens)

    # --------------------------------------------------------------------------------- cancellation

    def test_a_dropped_row_has_no_result_and_the_others_theirs(
        self, subject: Subject, driver: Driver, alone: list[Stream]
    ) -> None:
        streams = [Stream(slot, one.prompt, 1) for slot, one in enumerate(alone)]
        rows, kv, admits = (
            list(part) for part in zip(*(driver.first(stream) for stream in streams), strict=True)
        )
        result = driver.step(rows, kv, admits, tokens=[DROPPED, *[0] * (len(rows) - 1)])
        assert [row.slot for row in result.rows] == [row.slot for row in rows[1:]]
        take(result, streams)
        for one, stream in zip(alone[1:], streams[1:], strict=True):
            assert_same(subject, one, stream.tokens)

    def test_a_step_of_dropped_rows_gives_nothing(
        self, driver: Driver, prompts: list[list[int]]
    ) -> None:
        row, trim, admit = driver.first(Stream(0, prompts[0], 1))
        assert driver.step([row], [trim], [admit], tokens=[DROPPED]).rows == ()

    def test_the_cache_operations_of_a_dropped_row_are_done(
        self, subject: Subject, driver: Driver, alone: list[Stream]
    ) -> None:
        stream = Stream(0, alone[0].prompt, COUNT)
        driver.generate(Stream(0, alone[1].prompt, 2))
        row, _, admit = driver.first(stream)
        driver.step([row], [Trim(0, 0)], [admit], tokens=[DROPPED])
        [tokens] = driver.generate(stream, kv=[])
        assert_same(subject, alone[0], tokens)

    def test_a_dropped_row_leaves_no_trace_in_its_slot(
        self, subject: Subject, driver: Driver, alone: list[Stream]
    ) -> None:
        """The sequence goes on from where it was before the row that was dropped."""
        stream = Stream(0, alone[0].prompt, COUNT)
        take(begin(driver, stream).handle.result(), [stream])
        position = stream.position
        driver.step([Row(0, stream.epoch, position, (stream.tokens[0],))], tokens=[DROPPED])
        go_on(driver, stream)
        assert_same(subject, alone[0], stream.tokens)

    def test_a_slot_changes_hands_after_half_a_prompt(
        self, subject: Subject, driver: Driver, alone: list[Stream]
    ) -> None:
        row, trim, admit = driver.first(Stream(0, alone[0].prompt, 1))
        half = Row(0, row.epoch, 0, row.tokens[:3], sample=False)
        assert driver.step([half], [trim], [admit]).rows == ()
        [tokens] = driver.generate(Stream(0, alone[1].prompt, COUNT))
        assert_same(subject, alone[1], tokens)

    def test_a_slot_changes_hands_while_its_step_computes(
        self, subject: Subject, engine: Engine, driver: Driver, alone: list[Stream]
    ) -> None:
        """The old sequence was cancelled: the new one's step is prepared while its own computes."""
        old, new = Stream(0, alone[0].prompt, 1), Stream(0, alone[1].prompt, COUNT)
        flight = begin(driver, old)
        row, trim, admit = driver.first(new)
        prepared = engine.prepare_next(driver.plan([row], [trim], [admit]), flight.prepared)
        if engine.limits.token_feed == "device":
            following = driver.start(prepared)
            late = flight.handle.result()
        else:
            late = flight.handle.result()
            following = driver.start(prepared)
        assert [result.epoch for result in late.rows] == [old.epoch]
        take(following.handle.result(), [new])
        go_on(driver, new)
        assert_same(subject, alone[1], new.tokens)

    def test_results_carry_their_rows_epoch(self, driver: Driver, prompts: list[list[int]]) -> None:
        epochs = []
        for _ in range(3):
            stream = Stream(0, prompts[0], 1)
            driver.generate(stream)
            epochs.append(stream.results[0].epoch)
        assert epochs == sorted(set(epochs))

    def test_a_sequence_ends_while_its_next_row_is_prepared(
        self, subject: Subject, engine: Engine, driver: Driver, alone: list[Stream]
    ) -> None:
        """The late stop: two rows are prepared, one of them is dropped when the step starts."""
        need(engine.limits.token_feed == "host", "token_feed 'host'")
        ended, stays = Stream(0, alone[0].prompt, COUNT), Stream(1, alone[1].prompt, COUNT)
        flight = begin(driver, ended, stays)
        rows = [next_row(ended, 1), next_row(stays, 1)]
        prepared = engine.prepare_next(driver.plan(rows), flight.prepared)
        take(flight.handle.result(), [ended, stays])
        step = driver.start(prepared, [DROPPED, stays.tokens[-1]])
        take(step.handle.result(), [stays])
        go_on(driver, stays)
        assert_same(subject, alone[1], stays.tokens)
