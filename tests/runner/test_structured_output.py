"""Structured output: whatever is sampled is valid, whichever engine samples it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from lhama_testing_line import GREEDY, ORDERS, Line, Received
from lhama_testing_schemas import Case, check_valid, corpus, is_prefix

from lhama.backends.reference.engine import Handle
from lhama.backends.reference.model import Behaviour
from lhama.daemon.runner.grammar import GrammarError, Grammars, Masks
from lhama.daemon.runner.pipeline import Order
from lhama.plugins.backend import DROPPED, Engine, LoadOptions, ModelFiles, Sampling
from lhama.plugins.manager import discover

CORPUS = [case for case in corpus() if case.kept]
SAMPLINGS = (
    GREEDY,
    Sampling(temperature=0.8, seed=1),
    Sampling(temperature=1.5, top_k=0, top_p=1.0, seed=2),
)
SLOTS = 6
FEW = (
    *("objects: object", "references: expression", "choices: one of by tag"),
    *("strings: phone", "arrays: tuple", "scalars: bounded integer"),
)


def write_all(
    line: Line, cases: list[Case], samplings: tuple[Sampling, ...], num_predict: int
) -> list[tuple[Case, Received]]:
    """Every schema under every sampling, as many at once as there are slots."""
    grammars = Grammars(line.engine.tokenizer)
    waiting: list[tuple[Case, Received]] = []
    for case in cases:
        for sampling in samplings:
            prompt = f"<|im_start|>user\nJSON for {case.name}, please.<|im_end|>\n"
            received = line.submit(
                len(waiting),
                f"{prompt}<|im_start|>assistant\n",
                num_predict=num_predict,
                sampling=sampling,
                grammar=grammars.make(case.text),
            )
            waiting.append((case, received))
    for case, received in waiting:
        assert received.ended.wait(300), case.name
    return waiting


def check(case: Case, received: Received) -> bool:
    """A whole and valid value, or the beginning of one where the length ended it."""
    assert received.error == "", case.name
    assert received.done is not None
    if received.done.reason == "length":
        assert is_prefix(received.text), (case.name, received.text)
        return False
    check_valid(case, received.text)
    return True


@pytest.mark.parametrize("order", ORDERS)
def test_every_schema_in_every_order(order: Order) -> None:
    """The reference engine samples with no sense at all: the grammar alone keeps it right."""
    line = Line(order, Behaviour(), LoadOptions(slots=16, context=1024, batch=512))
    written = write_all(line, CORPUS, SAMPLINGS, 300)
    line.close()
    whole = sum(check(case, received) for case, received in written)
    assert whole > len(written) * 0.7


@pytest.mark.parametrize("order", ORDERS)
def test_masks_are_made_while_the_forward_pass_runs(
    order: Order, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step is started first, then its masks are computed, then they are handed over."""
    line = Line(order, Behaviour(compute_us=300), LoadOptions(slots=4, context=512, batch=256))
    events: list[tuple[str, int]] = []
    compute, masks_for = line.engine.compute_current, line.batcher.masks_for
    supply = Handle.supply_masks

    def computing(prepared: Any, tokens: Any) -> Any:
        handle = compute(prepared, tokens)
        events.append(("compute", prepared.plan.step))
        return handle

    def supplying(handle: Handle, masks: Mapping[int, bytes]) -> None:
        assert not handle.done.is_set(), "sampling waits for the masks"
        events.append(("masks", handle.plan.step))
        supply(handle, masks)

    def making(plan: Any) -> Any:
        events.append(("grammar", plan.step))
        return masks_for(plan)

    monkeypatch.setattr(Handle, "supply_masks", supplying)
    line.engine.compute_current = computing  # type: ignore[method-assign,assignment]
    line.batcher.masks_for = making  # type: ignore[method-assign]
    grammars = Grammars(line.engine.tokenizer)
    answers = [line.submit(n, "x", num_predict=30, grammar=grammars.make("json")) for n in (1, 2)]
    assert all(answer.ended.wait(10) for answer in answers)
    line.close()
    steps = [step for kind, step in events if kind == "masks"]
    assert len(steps) >= 30
    for step in steps:
        kinds = [kind for kind, of in events if of == step]
        assert kinds == ["compute", "grammar", "masks"]


@pytest.mark.parametrize("order", ORDERS)
def test_the_end_that_a_grammar_forces_is_counted_and_not_computed(order: Order) -> None:
    """As in Ollama, where the end token is drawn: one token more than there is text, or the
    length that was asked for."""
    line = Line(order, Behaviour())
    computed: list[int] = []
    compute = line.engine.compute_current

    def computing(prepared: Any, tokens: Any) -> Any:
        computed.append(sum(token != DROPPED for token in tokens))
        return compute(prepared, tokens)

    line.engine.compute_current = computing  # type: ignore[method-assign]
    grammars = Grammars(line.engine.tokenizer)
    free = line.submit(1, "x", num_predict=50, grammar=grammars.make('{"const": "abc"}'))
    short = line.submit(2, "x", num_predict=5, grammar=grammars.make('{"const": "abc"}'))
    cut = line.submit(3, "x", num_predict=4, grammar=grammars.make('{"const": "abc"}'))
    assert all(received.ended.wait(10) for received in (free, short, cut))
    line.close()
    ends = [(r.text, r.done.reason, r.done.eval_tokens) for r in (free, short, cut) if r.done]
    assert ends == [('"abc"', "stop", 6), ('"abc"', "length", 5), ('"abc', "length", 4)]
    late = order == "device"  # the next row is on its way when the end is seen
    assert sum(computed) == 5 + 5 + 4 + late


@pytest.mark.parametrize("order", ORDERS)
def test_a_grammar_that_fails_ends_its_own_answer(
    order: Order, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = Line(order, Behaviour(compute_us=200))
    grammars = Grammars(line.engine.tokenizer)
    bad, good = grammars.make("json"), grammars.make("json")
    compute = Masks.compute
    calls = 0

    def failing(self: Masks, wanted: Any) -> Any:
        nonlocal calls
        calls += 1
        found = compute(self, wanted)
        if calls > 5:
            return [
                GrammarError("boom") if g is bad else m for g, m in zip(wanted, found, strict=True)
            ]
        return found

    monkeypatch.setattr(Masks, "compute", failing)
    failed = line.submit(1, "x", num_predict=40, grammar=bad)
    fine = line.submit(2, "x", num_predict=40, grammar=good)
    plain = line.submit(3, "x", num_predict=40)
    assert all(received.ended.wait(10) for received in (failed, fine, plain))
    line.close()
    assert failed.error == "the grammar failed: boom"
    assert (fine.error, plain.error) == ("", "")
    assert len(plain.text) == 40
    assert (failed.ends, fine.ends, plain.ends) == (1, 1, 1)


# ---------------------------------------------------------------------------------- real engines


@pytest.fixture(params=["llamacpp", "pytorch"])
def engine(request: pytest.FixtureRequest, smollm2: Path) -> Iterator[Engine]:
    options = LoadOptions(slots=SLOTS, context=512, threads=2)
    files = ModelFiles("smollm2", str(smollm2))
    return discover().backends[request.param].load(files, options, lambda *_: None)


def test_real_models_write_what_the_schema_says(engine: Engine) -> None:
    line = Line("host", engine=engine)
    cases = [case for case in CORPUS if case.name in FEW]
    assert len(cases) == len(FEW)
    written = write_all(line, cases, SAMPLINGS[:2], 28)
    steps = [sum(row.masked for row in plan.rows) for plan in line.plans]
    line.close()
    whole = sum(check(case, received) for case, received in written)
    assert whole
    assert max(steps) == SLOTS, "masked rows share steps"


@pytest.mark.exhaustive
@pytest.mark.timeout(3600)
def test_real_models_write_the_whole_corpus(engine: Engine) -> None:
    line = Line("host", engine=engine)
    more = tuple(Sampling(temperature=1.0, seed=seed) for seed in range(3, 8))
    written = write_all(line, CORPUS, (*SAMPLINGS, *more), 160)
    line.close()
    whole = sum(check(case, received) for case, received in written)
    print(f"{whole} whole values of {len(written)}")
    assert whole > len(written) * 0.8


def test_an_exploding_pattern_is_an_error_and_nothing_else(engine: Engine) -> None:
    """llguidance gives up on a pattern with too many states; its neighbour goes on."""
    grammars, masks = Grammars(engine.tokenizer), Masks(engine.limits.vocab)
    bomb = grammars.make('{"type": "string", "pattern": "^(.*a.{50}.*b.{50}|.*c.{500})$"}')
    other = grammars.make("json")
    text = '"abcabaabccbaabcbcaacbacb'
    outcomes: list[Any] = []
    for token in engine.tokenizer.encode(text, add_special=False, parse_special=False):
        outcome, fine = masks.compute([bomb, other])
        assert isinstance(fine, bytes)
        outcomes.append(outcome)
        if isinstance(outcome, GrammarError):
            break
        try:
            bomb.accept(token)
        except GrammarError as error:
            outcomes.append(error)
            break
    engine.close()
    assert isinstance(outcomes[-1], GrammarError)
    assert "too many" in str(outcomes[-1])
