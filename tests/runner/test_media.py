"""Pictures in prompts: cut out of the text, laid out in the tokens, planned as rows of their own."""

from __future__ import annotations

from dataclasses import replace

from lhama.backends.reference.tokenizer import ReferenceTokenizer
from lhama.daemon.prompt.output import OutputParser
from lhama.daemon.runner.answer import Answer
from lhama.daemon.runner.batcher import Batcher
from lhama.daemon.runner.media import lay_out, split
from lhama.daemon.runner.sequence import Submission
from lhama.daemon.wire.messages import Prompt
from lhama.plugins.backend import DROPPED, Limits, Media, Row, RowResult, Sampling, StepResult

LIMITS = Limits(slots=2, context=256, batch_tokens=64, vocab=1000)


def test_a_text_is_cut_at_its_markers() -> None:
    assert split("a [img-0] b[img-1]", [b"0", b"1"]) == ["a ", b"0", " b", b"1"]
    assert split("[img-1][img-0]", [b"0", b"1"]) == [b"1", b"0"]
    assert split("[img-7] and [img-x]", [b"0"]) == ["[img-7] and [img-x]"]


def test_a_place_tells_one_picture_from_another() -> None:
    one, same, other = Media("a", 3, object()), Media("a", 3, object()), Media("b", 3, object())
    tokens, media = lay_out([5, one, 6])
    assert (tokens[0], tokens[4], len(tokens)) == (5, 6, 5)
    assert media == {1: one}
    assert all(token < DROPPED for token in tokens[1:4])
    assert len(set(tokens)) == 5
    assert lay_out([5, same, 6])[0] == tokens
    assert not set(lay_out([other])[0]) & set(tokens)


def _submit(batcher: Batcher, request_id: int, contents: list[int | Media]) -> None:
    tokens, media = lay_out(contents)
    answer = Answer(request_id, ReferenceTokenizer(), [], OutputParser(Prompt(), ""))
    sampling = Sampling(temperature=0)
    batcher.submit(Submission(request_id, tokens, sampling, 5, 0, False, -1, answer, media=media))


def _rows(batcher: Batcher) -> list[tuple[Row, int]]:
    plan = batcher.plan()
    assert plan is not None
    fed = batcher.tokens_for(plan)
    drawn = (RowResult(row.slot, row.epoch, 5) for row in plan.rows if row.sample)
    batcher.commit(plan, StepResult(tuple(drawn)))
    return list(zip(plan.rows, fed, strict=True))


def test_a_picture_is_a_row_of_its_own_and_never_cut() -> None:
    batcher = Batcher(replace(LIMITS, batch_tokens=8), frozenset())
    picture = Media("a", 20, object())
    _submit(batcher, 1, [1, 2, picture, 3, 4])
    rows = [_rows(batcher)[0] for _ in range(3)]
    assert [(row.position, row.tokens, row.media) for row, _ in rows] == [
        (0, (1, 2), None),
        (2, (), picture),
        (22, (3, 4), None),
    ]
    assert [row.sample for row, _ in rows] == [False, False, True]
    assert [fed for _, fed in rows] == [0, 0, 0]


def test_a_cached_picture_is_not_computed_again() -> None:
    batcher = Batcher(LIMITS, frozenset())
    picture = Media("a", 20, object())
    for request_id, last in ((1, [3, 4]), (2, [3, 9])):
        _submit(batcher, request_id, [1, 2, picture, *last])
        if request_id == 1:
            for _ in range(3):
                _rows(batcher)
            batcher.cancel(1)
    [(row, _)] = _rows(batcher)
    assert (row.position, row.tokens) == (23, (9,))


def test_penalties_look_back_on_tokens_only() -> None:
    batcher = Batcher(LIMITS, frozenset())
    _submit(batcher, 1, [1, Media("a", 4, object()), 2])
    plan = batcher.plan()
    assert plan is not None
    assert plan.admits[0].history == (1, 2)
