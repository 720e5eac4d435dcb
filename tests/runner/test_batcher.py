"""Which slot a request takes, and the order of a step's rows."""

from __future__ import annotations

from dataclasses import replace

from lhama.backends.reference.tokenizer import ReferenceTokenizer
from lhama.daemon.prompt.output import OutputParser
from lhama.daemon.runner.answer import Answer
from lhama.daemon.runner.batcher import COPY_GAIN, Batcher
from lhama.daemon.runner.sequence import Submission
from lhama.daemon.wire.messages import Prompt
from lhama.plugins.backend import Limits, RowResult, Sampling, StepPlan, StepResult

END = 999
LIMITS = Limits(slots=6, context=256, batch_tokens=512, vocab=1000)
_TOKENIZER = ReferenceTokenizer()


def _submit(batcher: Batcher, request_id: int, prompt: list[int]) -> None:
    answer = Answer(request_id, _TOKENIZER, [], OutputParser(Prompt(), ""))
    batcher.submit(Submission(request_id, prompt, Sampling(temperature=0), 50, 0, True, -1, answer))


def _run(batcher: Batcher, tokens: dict[int, int]) -> StepPlan:
    """One step in which every slot samples 7, or what ``tokens`` says."""
    plan = batcher.plan()
    assert plan is not None
    batcher.commit(
        plan,
        StepResult(
            tuple(RowResult(r.slot, r.epoch, tokens.get(r.slot, 7)) for r in plan.rows if r.sample)
        ),
    )
    batcher.take_news()
    return plan


def _slots(plan: StepPlan) -> list[int]:
    return [row.slot for row in plan.rows]


def test_requests_at_once_take_neighbouring_slots_in_order() -> None:
    batcher = Batcher(LIMITS, frozenset({END}))
    for n in range(4):
        _submit(batcher, n, [10 + n, 1, 2])
    assert _slots(_run(batcher, {})) == [0, 1, 2, 3]
    _run(batcher, {1: END})
    assert _slots(_run(batcher, {})) == [0, 2, 3]
    _submit(batcher, 9, [50, 51])
    plan = _run(batcher, {})
    assert _slots(plan) == [0, 1, 2, 3], "the gap between the busy slots is filled first"


def test_a_long_prefix_is_worth_a_slot_far_away() -> None:
    batcher = Batcher(LIMITS, frozenset({END}))
    long = list(range(100, 100 + COPY_GAIN + 8))
    _submit(batcher, 0, [1, 2, 3])
    _submit(batcher, 1, [4, 5, 6])
    _submit(batcher, 2, long)
    _run(batcher, {})
    _run(batcher, {1: END, 2: END})
    _submit(batcher, 3, [*long, 42])
    plan = _run(batcher, {})
    assert _slots(plan) == [0, 2]
    assert plan.rows[1].position == len(long)


def test_a_short_prefix_is_not() -> None:
    batcher = Batcher(LIMITS, frozenset({END}))
    for n in range(3):
        _submit(batcher, n, [n, 5, 6])
    _run(batcher, {})
    _run(batcher, {1: END, 2: END})
    _submit(batcher, 3, [2, 5, 9])
    assert _slots(_run(batcher, {})) == [0, 1]


def _pieces(plan: StepPlan) -> dict[int, int]:
    return {row.slot: len(row.tokens) or 1 for row in plan.rows}


def test_prompts_share_a_step_in_equal_pieces_where_the_engine_wants_it() -> None:
    batcher = Batcher(replace(LIMITS, batch_tokens=90, ragged=False), frozenset({END}))
    for n, length in enumerate((70, 40, 50)):
        _submit(batcher, n, [n] * length)
    assert _pieces(_run(batcher, {})) == {0: 30, 1: 30, 2: 30}
    assert _pieces(_run(batcher, {})) == {0: 30, 1: 10, 2: 20}
    assert _pieces(_run(batcher, {})) == {0: 10, 1: 1, 2: 1}


def test_prompts_come_one_after_the_other_where_it_does_not() -> None:
    batcher = Batcher(replace(LIMITS, batch_tokens=90), frozenset({END}))
    for n, length in enumerate((70, 40)):
        _submit(batcher, n, [n] * length)
    assert _pieces(_run(batcher, {})) == {0: 70, 1: 20}


def test_a_prompt_waits_for_many_that_generate_and_not_for_few() -> None:
    batcher = Batcher(replace(LIMITS, batch_tokens=80), frozenset({END}))
    for n in range(3):
        _submit(batcher, n, [n, 1])
    _run(batcher, {})
    _submit(batcher, 3, [9] * 70)
    assert _pieces(_run(batcher, {}))[3] == 20, "a quarter of the step"
    _run(batcher, {0: END})
    for n in range(4, 7):
        _submit(batcher, n, [10] * 70)
    assert _pieces(_run(batcher, {})) == {1: 1, 2: 1, 3: 30, 4: 48}, "all that is left"


def test_groups_take_half_of_the_requests_each_in_one_step() -> None:
    batcher = Batcher(replace(LIMITS, groups=2), frozenset({END}))
    for n in range(5):
        _submit(batcher, n, [n, 1, 2])
    first, second = _run(batcher, {}), batcher.plan(flying=0)
    assert (first.group, _slots(first)) == (0, [0, 1, 2])
    assert second is not None
    assert (second.group, _slots(second)) == (1, [3, 4])


def test_a_prefix_is_waited_for_in_its_group() -> None:
    batcher = Batcher(replace(LIMITS, groups=2), frozenset({END}))
    long = list(range(100, 100 + COPY_GAIN + 8))
    _submit(batcher, 0, [1, 2])
    _submit(batcher, 1, long)
    _run(batcher, {})
    other = batcher.plan(flying=0)
    assert other is not None
    assert other.group == 1
    batcher.commit(other, StepResult((RowResult(3, 1, END),)))
    _submit(batcher, 2, [*long, 7])
    plans = [batcher.plan(flying=1), batcher.plan(flying=0)]
    assert [(p.group, _slots(p)) for p in plans if p is not None] == [(0, [0]), (1, [3])]
    assert plans[1] is not None
    assert plans[1].rows[0].position == len(long)


def test_a_prefix_in_the_fuller_group_keeps_nobody_waiting() -> None:
    batcher = Batcher(replace(LIMITS, groups=2), frozenset({END}))
    long = list(range(100, 100 + COPY_GAIN + 8))
    for n in range(6):
        _submit(batcher, n, [n, *long])
    for flying in (1, 0):
        plan = batcher.plan(flying)
        assert plan is not None
        ends = {row.slot: END for row in plan.rows if plan.group == 1 or row.slot == 2}
        results = (RowResult(r.slot, r.epoch, ends.get(r.slot, 7)) for r in plan.rows)
        batcher.commit(plan, StepResult(tuple(results)))
    assert batcher.running == 2, "both of group 0"
    _submit(batcher, 9, [2, *long, 5])  # slot 2's prompt again
    plan = batcher.plan(flying=1)
    assert plan is not None
    assert (plan.group, _slots(plan)) == (0, [0, 1, 2])
