"""Fifteen bugs that shipped in other overlapped schedulers, each as a test of its own.

What they were and where: vLLM, SGLang, TensorRT-LLM, Ollama, LMCache, mlx-lm, llama.cpp. Each test
says what went wrong there. The engines: the reference with random delays in both token feeds,
llama.cpp, and PyTorch in both feeds, on a tiny model; what only a card can do wrong needs one.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lhama_testing_line import ORDERS, Line, Received
from lhama_testing_traps import (
    ENGINES,
    NAN_WORD,
    ON_CARD,
    SAMPLINGS,
    Script,
    behaviour,
    draining,
    engine,
    order_of,
    trace,
)

from lhama.daemon.runner.grammar import Grammars
from lhama.daemon.runner.pipeline import Order
from lhama.plugins.backend import DROPPED, LoadOptions, Sampling, Shift

ONE_SLOT = LoadOptions(slots=1, context=256, batch=64)
every_engine = pytest.mark.parametrize("kind", ENGINES)
in_every_order = pytest.mark.parametrize("order", ORDERS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


def outcome(received: Received) -> tuple[Any, ...]:
    """All that a client could compare."""
    done = received.done
    assert done is not None, received.error
    tokens = tuple(item.token for item in received.logprobs)
    return received.text, tokens, done.reason, done.eval_tokens, done.prompt_tokens


def alone(kind: str, folder: Path, text: str, **wishes: Any) -> Received:
    """What a request gets from a sequential line of its own."""
    line = Line("off", engine=engine(kind, folder))
    received = line.submit(1, text, **wishes)
    assert received.ended.wait(30)
    line.close()
    return received


# ------------------------------------------------------------------------- 1: stale results


@every_engine
@pytest.mark.parametrize("turn", [2, 3, 4, 5, 6])
def test_1_a_late_result_never_reaches_the_slots_next_occupant(
    kind: str, folder: Path, turn: int
) -> None:
    """Ollama: a slot given away while its step computed; the old logits became the new text."""
    line = Line(order_of(kind), engine=engine(kind, folder, slots=1))
    script = Script(line)
    gone = script.submit(1, 1, "the first one", num_predict=100, logprobs=0)
    real = script.submit(turn, 2, "another", num_predict=12, logprobs=0)
    script.cancel(turn, 1)
    script.run()
    line.close()
    assert gone.ends == 0
    assert outcome(real) == outcome(alone(kind, folder, "another", num_predict=12, logprobs=0))
    assert {row.epoch for plan in line.plans for row in plan.rows} == {1, 2}


# ------------------------------------------------------------------------- 2: off by one


@every_engine
@pytest.mark.parametrize("num_predict", [1, 2, 3, 4])
def test_2_a_length_is_exact_and_costs_no_step(kind: str, folder: Path, num_predict: int) -> None:
    """Ollama lost the last token, vLLM and mlx-lm computed one too many."""
    line = Line(order_of(kind), engine=engine(kind, folder))
    computed = counting(line)
    received = line.submit(1, "how long", num_predict=num_predict, logprobs=0)
    assert received.ended.wait(30)
    line.close()
    assert received.done is not None
    if received.done.reason == "length":
        assert received.done.eval_tokens == len(received.logprobs) == num_predict
        assert sum(computed) == num_predict


def test_2_an_end_token_ends_the_line_without_an_empty_step() -> None:
    line = Line("host", behaviour("host", end_after=6), ONE_SLOT)
    computed = counting(line)
    answers = [line.submit(n, f"number {n}", num_predict=100) for n in range(8)]
    assert all(answer.ended.wait(30) for answer in answers)
    line.close()
    assert {answer.done.reason for answer in answers if answer.done} == {"stop"}
    assert sum(computed) == sum(answer.done.eval_tokens for answer in answers if answer.done)
    assert all(computed), "a step with nothing in it was computed"


def counting(line: Line) -> list[int]:
    """Sampling rows that were really computed, step by step."""
    computed: list[int] = []
    compute = line.engine.compute_current

    def computing(prepared: Any, tokens: Any) -> Any:
        rows = zip(prepared.plan.rows, tokens, strict=True)
        computed.append(sum(row.sample and token != DROPPED for row, token in rows))
        return compute(prepared, tokens)

    line.engine.compute_current = computing  # type: ignore[method-assign]
    return computed


# ------------------------------------------------------------------------- 3: blast radius


@pytest.mark.parametrize("kind", ["llamacpp", "pytorch-host", "pytorch-device", ON_CARD])
@pytest.mark.parametrize("slots", [1, 3])
def test_3_a_row_that_is_no_number_ends_one_request(kind: str, folder: Path, slots: int) -> None:
    """Ollama: one bad row killed the runner. Here its mates, and whoever gets its slot, go on."""
    line = Line(order_of(kind), engine=engine(kind, folder, slots=slots, poisoned=True))
    mates = [line.submit(n, f"a mate {n}", num_predict=20) for n in range(2)]
    bad = line.submit(9, "it is the end", num_predict=20)
    assert all(received.ended.wait(30) for received in (*mates, bad))
    after = [line.submit(20 + n, f"a mate {n % 2}", num_predict=20) for n in range(6)]
    assert all(received.ended.wait(30) for received in after)
    line.close()
    assert "number" in bad.error
    assert bad.ends == 1
    assert [received.error for received in (*mates, *after)] == [""] * 8
    assert {received.text for received in after} == {mate.text for mate in mates}
    assert NAN_WORD.strip("▁") in "it is the end"


@in_every_order
@pytest.mark.parametrize("fault", ["prepare", "compute", "row"])
@pytest.mark.parametrize("step", [1, 2, 3, 5, 8])
def test_3_a_fault_at_any_step_ends_what_was_in_it(order: Order, fault: str, step: int) -> None:
    line = Line(order, behaviour(order, fault=fault, fault_step=step))
    hit = [line.submit(n, f"number {n}", num_predict=12) for n in range(3)]
    assert all(received.ended.wait(30) for received in hit)
    after = line.submit(9, "number 0", num_predict=12)
    assert after.ended.wait(30)
    assert line.batcher.idle
    line.close()
    assert (after.error, len(after.text)) == ("", 12)
    assert all(received.ends == 1 for received in hit)
    assert any(received.error for received in hit)
    if fault == "row":
        assert sum(bool(received.error) for received in hit) == 1


class Broken(Exception):
    """Not one of the contract's errors: a bug in an engine."""


@in_every_order
@pytest.mark.parametrize("half", ["prepare_next", "compute_current", "result"])
def test_3_a_bug_in_an_engine_is_an_error_and_no_deadlock(order: Order, half: str) -> None:
    line = Line(order, behaviour(order))
    calls = 0

    def failing(work: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == 4:
                raise Broken("a bug")
            return work(*given)

        return call

    if half == "result":
        compute = line.engine.compute_current

        class Handle:
            def __init__(self, handle: Any) -> None:
                self.result = failing(handle.result)
                self.supply_masks = handle.supply_masks

        line.engine.compute_current = lambda *given: Handle(compute(*given))  # type: ignore[method-assign,assignment,return-value]
    else:
        setattr(line.engine, half, failing(getattr(line.engine, half)))
    hit = [line.submit(n, f"number {n}", num_predict=12) for n in range(3)]
    assert all(received.ended.wait(30) for received in hit)
    after = line.submit(9, "after", num_predict=12)
    assert after.ended.wait(30)
    line.close()
    assert {received.error for received in hit} <= {"a bug", ""}
    assert any(received.error for received in hit)
    assert (after.error, len(after.text)) == ("", 12)


# --------------------------------------------- 4, 5, 8: what is read while something else is written


@pytest.mark.parametrize("kind", ["llamacpp", "pytorch-host", "pytorch-device"])
def test_4_and_8_preparing_a_step_writes_nothing_that_the_one_in_flight_reads(
    kind: str, folder: Path
) -> None:
    """vLLM refilled a pinned buffer before its copy had run, SGLang a page table that the forward
    pass still read. Here a step waits for its masks while the next one is prepared."""
    line = Line(order_of(kind), engine=engine(kind, folder))
    grammars = Grammars(line.engine.tokenizer)
    prepare = line.engine.prepare_next
    seen: list[int] = []

    def preparing(plan: Any, previous: Any) -> Any:
        draft = prepare(plan, previous)
        if previous is not None:
            seen.append(plan.step)
        return draft

    line.engine.prepare_next = preparing  # type: ignore[method-assign]
    texts = [f"prompt {n} " * (n + 1) for n in range(6)]
    answers = [
        line.submit(n, text, num_predict=10, grammar=grammars.make('{"type": "string"}'))
        for n, text in enumerate(texts)
    ]
    assert all(answer.ended.wait(60) for answer in answers)
    line.close()
    assert len(seen) > 10, "steps were prepared while another was in flight"
    for text, answer in zip(texts, answers, strict=True):
        twin = Line("off", engine=engine(kind, folder))
        own = Grammars(twin.engine.tokenizer).make('{"type": "string"}')
        expected = twin.submit(1, text, num_predict=10, grammar=own)
        assert expected.ended.wait(60)
        twin.close()
        assert (answer.text, answer.error) == (expected.text, "")


@every_engine
def test_5_a_result_is_read_when_it_is_there(kind: str, folder: Path) -> None:
    """vLLM, Ollama: the host read tokens before their copy had landed, and so old ones."""
    line = Line(order_of(kind), engine=engine(kind, folder))
    compute = line.engine.compute_current
    tokens: list[int] = []

    def computing(prepared: Any, given: Any) -> Any:
        handle = compute(prepared, given)
        result = handle.result

        def reading() -> Any:
            found = result()
            assert all(row.token >= 0 for row in found.rows)
            tokens.extend(row.token for row in found.rows if row.slot == 0)
            return found

        return _With(handle, reading)

    line.engine.compute_current = computing  # type: ignore[method-assign]
    received = line.submit(1, "one two three", num_predict=30, logprobs=0)
    assert received.ended.wait(30)
    line.close()
    piece = line.engine.tokenizer.piece
    said = [item.token for item in received.logprobs]
    assert [piece(token, special=True) for token in tokens][: len(said)] == said
    expected = alone(kind, folder, "one two three", num_predict=30, logprobs=0)
    assert said == [item.token for item in expected.logprobs]


class _With:
    """A handle with another ``result``."""

    def __init__(self, handle: Any, result: Callable[[], Any]) -> None:
        self.result = result
        self.supply_masks = handle.supply_masks


@pytest.mark.parametrize("expandable", [False, True])
def test_4_5_8_and_9_on_a_card_that_is_slow_to_begin(folder: Path, expandable: bool) -> None:
    """The card sleeps before each step, so that copies, tables and frees of the host all come
    early; with both of PyTorch's allocators, since one of them hides a freed tensor's reuse."""
    pytest.importorskip("torch")
    import torch

    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    script = Path(__file__).parent / "slow_card_script.py"
    setting = f"expandable_segments:{expandable}"
    environment = os.environ | {
        "PYTORCH_CUDA_ALLOC_CONF": setting,
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    done = subprocess.run(
        [sys.executable, str(script), str(folder)], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


# ------------------------------------------------------------------------- 6: token feed


@every_engine
def test_6_many_slots_and_prompts_in_pieces_feed_their_own_tokens(kind: str, folder: Path) -> None:
    """SGLang: a ring of fed tokens wrapped around while prompts came in pieces."""
    line = Line(order_of(kind), engine=engine(kind, folder, slots=8))
    texts = [chr(97 + n) * (5 + 23 * n % 97) for n in range(24)]
    answers = [
        line.submit(n, text, num_predict=10 + n % 5, logprobs=0, sampling=SAMPLINGS[n % 4])
        for n, text in enumerate(texts)
    ]
    assert all(answer.ended.wait(60) for answer in answers)
    mixed = [plan for plan in line.plans if {row.sample for row in plan.rows} == {True, False}]
    line.close()
    assert mixed, "pieces of prompts and generated tokens in one step"
    for n, (text, answer) in enumerate(zip(texts, answers, strict=True)):
        wishes: dict[str, Any] = {"logprobs": 0, "sampling": SAMPLINGS[n % 4]}
        assert outcome(answer) == outcome(
            alone(kind, folder, text, num_predict=10 + n % 5, **wishes)
        )


# ------------------------------------------------------------------------- 7: freed too early


@every_engine
def test_7_what_a_step_in_flight_uses_is_not_given_away(kind: str, folder: Path) -> None:
    """SGLang, vLLM: keys and values freed under a running step. Here slots are given away at
    once, and the order of steps is the fence; the prefix is copied from a slot that computes."""
    line = Line(order_of(kind), engine=engine(kind, folder, slots=2))
    script = Script(line)
    shared = "a long beginning that many prompts have in common, "
    expected = {}
    for n in range(12):
        text = shared + chr(97 + n % 3)
        received = script.submit(1 + 3 * n, n, text, num_predict=9, logprobs=0)
        if n % 3 == 1:
            script.cancel(3 + 3 * n, n)
        else:
            expected[n] = (received, text)
    script.run()
    line.close()
    for received, text in expected.values():
        assert outcome(received) == outcome(alone(kind, folder, text, num_predict=9, logprobs=0))


# ------------------------------------------------------------------------- 10: stopped and resumed


@in_every_order
def test_10_a_context_moves_on_only_when_no_token_is_on_its_way(order: Order) -> None:
    """vLLM, TensorRT-LLM: a request was put aside with a token in flight, which was lost or came
    twice. Here nothing is put aside, but a full context moves on: for all, at the same token."""
    line = Line(order, behaviour(order), LoadOptions(slots=2, context=64, batch=32))
    answers = [line.submit(n, f"text {n}", num_predict=150, num_keep=3) for n in range(3)]
    assert all(answer.ended.wait(30) for answer in answers)
    shifts = [op for plan in line.plans for op in plan.kv if isinstance(op, Shift)]
    line.close()
    twin = Line("off", options=LoadOptions(slots=1, context=64, batch=32))
    expected = [twin.submit(n, f"text {n}", num_predict=150, num_keep=3) for n in range(3)]
    assert all(answer.ended.wait(30) for answer in expected)
    twin.close()
    assert len(shifts) >= 9
    assert [answer.text for answer in answers] == [answer.text for answer in expected]
    assert {len(answer.text) for answer in answers} == {150}


@every_engine
def test_10_and_the_answer_goes_on_as_it_would_without_overlapping(kind: str, folder: Path) -> None:
    """Also where the rest of the context is computed anew, since the engine cannot move it."""
    hot = Sampling(temperature=2.0, top_k=0, top_p=1.0, seed=3)
    found = []
    for order in ("off", order_of(kind)):
        line = Line(order, engine=engine(kind, folder, slots=1))
        answers = [
            line.submit(n, "a" * 200, num_predict=150, num_keep=5, sampling=hot, logprobs=0)
            for n in range(2)
        ]
        assert all(answer.ended.wait(60) for answer in answers)
        line.close()
        found.append([outcome(answer) for answer in answers])
    assert found[0] == found[1]


# ------------------------------------------------------------------------- 11: placeholders


@every_engine
def test_11_penalties_see_the_tokens_and_no_placeholder(kind: str, folder: Path) -> None:
    """vLLM, three times: penalties counted the placeholder of the token in flight."""
    never = Sampling(temperature=0.0, presence_penalty=1e6, repeat_last_n=-1)
    line = Line(order_of(kind), engine=engine(kind, folder))
    answers = [
        line.submit(n, f"some words {n}", num_predict=30, sampling=never, logprobs=0)
        for n in range(3)
    ]
    assert all(answer.ended.wait(30) for answer in answers)
    line.close()
    for n, answer in enumerate(answers):
        said = [item.token for item in answer.logprobs]
        if not kind.startswith("reference"):  # which has no penalties
            assert len(set(said)) == len(said)
        expected = alone(
            kind, folder, f"some words {n}", num_predict=30, sampling=never, logprobs=0
        )
        assert outcome(answer) == outcome(expected)


# ------------------------------------------------------------------------- 12: grammars


@every_engine
def test_12_a_mask_belongs_to_the_token_before_it(kind: str, folder: Path) -> None:
    """vLLM: yesterday's grammar state masked today's token; elsewhere no mask at all was used.
    Each of many answers is one of the two texts that its own schema allows."""
    line = Line(order_of(kind), engine=engine(kind, folder))
    grammars = Grammars(line.engine.tokenizer)
    answers = {}
    for n in range(12):
        allowed = [f"{n}-left-{'ab' * n}", f"{n}-right-{'cd' * n}"]
        grammar = grammars.make('{"enum": ["' + '", "'.join(allowed) + '"]}')
        sampling = SAMPLINGS[n % 3]
        received = line.submit(n, "say", num_predict=100, sampling=sampling, grammar=grammar)
        answers[n] = (received, {f'"{text}"' for text in allowed})
    assert all(received.ended.wait(60) for received, _ in answers.values())
    line.close()
    for received, allowed_texts in answers.values():
        assert received.error == ""
        assert received.text in allowed_texts


@pytest.mark.parametrize("kind", ["llamacpp", "pytorch-host", "pytorch-device"])
def test_12_a_row_without_its_mask_is_not_drawn_freely(kind: str, folder: Path) -> None:
    line = Line(order_of(kind), engine=engine(kind, folder))
    grammars = Grammars(line.engine.tokenizer)
    line.batcher.masks_for = lambda plan: {}  # type: ignore[method-assign]
    lost = line.submit(1, "say", num_predict=20, grammar=grammars.make('{"const": "x"}'))
    mate = line.submit(2, "say", num_predict=20)
    assert lost.ended.wait(30)
    assert mate.ended.wait(30)
    line.close()
    assert lost.error
    assert lost.text == ""
    assert mate.error == ""


# ------------------------------------------------------------------------- 13: counted too early


@every_engine
@pytest.mark.parametrize("turn", [2, 3, 4])
def test_13_only_what_was_computed_is_offered_again(kind: str, folder: Path, turn: int) -> None:
    """LMCache saved keys that were scheduled and never computed. A prompt in pieces is cancelled
    in the middle; the same prompt then starts on what is really there."""
    prompt = "0123456789" * 14
    line = Line(order_of(kind), engine=engine(kind, folder, slots=1))
    script = Script(line)
    script.submit(1, 1, prompt, num_predict=5)
    script.cancel(turn, 1)
    again = script.submit(turn, 2, prompt, num_predict=10, logprobs=0)
    script.run()
    line.close()
    assert again.done is not None
    assert again.done.cached_tokens <= 64 * (turn - 1)
    assert outcome(again) == outcome(alone(kind, folder, prompt, num_predict=10, logprobs=0))


@in_every_order
@pytest.mark.parametrize("fault", ["prepare", "compute"])
def test_13_a_failed_step_voids_what_its_slots_hold(order: Order, fault: str) -> None:
    line = Line(order, behaviour(order, fault=fault, fault_step=4), ONE_SLOT)
    first = line.submit(1, "the same prompt twice", num_predict=30)
    assert first.ended.wait(30)
    again = line.submit(2, "the same prompt twice", num_predict=30)
    assert again.ended.wait(30)
    third = line.submit(3, "the same prompt twice", num_predict=30)
    assert third.ended.wait(30)
    line.close()
    assert first.error
    assert again.done is not None
    assert third.done is not None
    assert again.done.cached_tokens == 0
    assert third.done.cached_tokens > 0
    assert again.text == third.text


# ------------------------------------------------------------------------- 14: llama.cpp's graphs


def test_14_graphs_that_are_used_again_compute_the_same(folder: Path) -> None:
    """llama.cpp and forks: a graph used again by its shape alone gave fluent wrong text."""
    script = Path(__file__).parent / "graph_reuse_script.py"
    command = [sys.executable, str(script), str(folder)]
    found = []
    for setting in ({}, {"LLAMA_GRAPH_REUSE_DISABLE": "1"}):
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)} | setting
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        found.append(done.stdout)
    assert found[0] == found[1]
    assert len(found[0].splitlines()) == 9


# ------------------------------------------------------------------------- 15: edges


@every_engine
def test_15_idle_and_busy_and_idle_again(kind: str, folder: Path) -> None:
    """Transformers crashed on an empty queue at the start; others hang after the last batch."""
    line = Line(order_of(kind), engine=engine(kind, folder))
    for n in range(-1, -4, -1):
        line.cancel(n)  # nothing to do, several times
    expected = None
    for n in range(6):
        received = line.submit(n, "once more", num_predict=4, logprobs=0)
        assert received.ended.wait(30)
        expected = expected or outcome(received)
        assert outcome(received) == expected
    line.close()
    assert line.batcher.idle


@every_engine
@pytest.mark.parametrize("turn", [1, 2, 3, 6])
def test_15_closing_with_a_step_in_flight(kind: str, folder: Path, turn: int) -> None:
    """Unload: the step is finished, the engine is closed after it, and nobody hangs."""
    before = threading.active_count()
    line = Line(order_of(kind), engine=engine(kind, folder))
    script = Script(line)
    closed = threading.Event()

    def close() -> None:
        line.pipeline.inbox.put(None)
        closed.set()

    for n in range(4):
        script.submit(1, n, f"number {n}", num_predict=200)
    script.at(turn, close)
    line.cancel(-1)
    assert closed.wait(30)
    line.close()
    assert threading.active_count() <= before + 1, "threads are left"


@in_every_order
def test_15_closing_while_a_step_waits_for_its_masks(order: Order) -> None:
    line = Line(order, behaviour(order))
    grammars = Grammars(line.engine.tokenizer)
    script = Script(line)
    script.submit(1, 1, "x", num_predict=200, grammar=grammars.make("json"))
    script.at(4, lambda: line.pipeline.inbox.put(None))
    line.cancel(-1)
    line.close()


# ----------------------------------------------------- one after the other and overlapped: the same


@pytest.mark.parametrize("kind", [*ENGINES, ON_CARD])
def test_equality_1_a_fixed_batch(kind: str, folder: Path) -> None:
    """Everybody comes and goes at the same step: not a token may differ, on any engine."""
    found = []
    for order in ("off", order_of(kind)):
        line = Line(order, engine=engine(kind, folder, slots=4))
        script = Script(line)
        answers = [
            script.submit(1, n, "same size", num_predict=40, sampling=sampling, logprobs=2)
            for n, sampling in enumerate(SAMPLINGS)
        ]
        script.run()
        line.close()
        assert all(len(a.logprobs) == 40 for a in answers), "who ends early changes the batch"
        found.append([(*outcome(a), [i.top for i in a.logprobs]) for a in answers])
    assert found[0] == found[1]


@pytest.mark.parametrize("kind", [*ENGINES, ON_CARD])
@pytest.mark.parametrize("seed", [1, 2])
def test_equality_2_lagged_twin(kind: str, folder: Path, seed: int) -> None:
    """Requests come and go; the twin decides everything when the overlapped order does and waits
    for every step at once: the same rows in the same steps, and the same tokens."""
    found = []
    for lagged in (False, True):
        line = Line(order_of(kind), engine=engine(kind, folder))
        if lagged:
            draining(line)
        script = Script(line)
        answers = []
        for n in range(14):
            turn = 1 + (n * (3 + seed)) % 29
            answers.append(
                script.submit(
                    turn,
                    n,
                    f"text {n % 5} " * (1 + n % 4),
                    num_predict=(5, 9, 14, 30)[n % 4],
                    sampling=SAMPLINGS[n % 4],
                    stop=[["q"], [], ["e", "th"]][n % 3],
                    logprobs=0,
                )
            )
            if n % 5 == seed:
                script.cancel(turn + 4, n)
        script.run()
        line.close()
        texts = [(a.text, [i.token for i in a.logprobs], a.ends) for a in answers]
        found.append((trace(line), texts))
    assert found[0] == found[1]
    assert len(found[0][0]) > 20


@pytest.mark.parametrize("kind", ["reference-host", "reference-device"])
def test_equality_3_in_nature(kind: str, folder: Path) -> None:
    """Whenever they come and whoever is beside them. (On engines whose kernels round by batch,
    near-ties may fall either way; ``test_real_engines`` holds SmolLM2 to the same texts.)"""
    line = Line(order_of(kind), engine=engine(kind, folder))
    wishes = [
        (f"text {n} " * (1 + n % 3), {"num_predict": 7 + n % 11, "sampling": SAMPLINGS[n % 3]})
        for n in range(40)
    ]
    answers = []
    for n, (text, wish) in enumerate(wishes):
        answers.append(line.submit(n, text, logprobs=0, **wish))
        if n % 3 == 0:
            answers[-1].ended.wait(0.003)
    assert all(answer.ended.wait(30) for answer in answers)
    line.close()
    for answer, (text, wish) in zip(answers, wishes, strict=True):
        assert outcome(answer) == outcome(alone(kind, folder, text, logprobs=0, **wish))


# ----------------------------------------------------------------------- cancels at every moment


@in_every_order
def test_a_cancel_at_every_moment(order: Order) -> None:
    """Before and after every call of every half, for all of a short run: the others get what they
    get alone, the slot serves the next one, and nothing is left behind."""
    mates = {n: alone_text(f"mate {n}", 9) for n in (1, 2)}
    late = alone_text("late", 6)
    victim_text = alone_text("victim", 12)
    moments = 0
    moment = 0
    while moment <= moments + 1:
        line = Line(order, behaviour(order), LoadOptions(slots=2, context=128, batch=32))
        passed = calls_of(line, moment, lambda line=line: line.cancel(0))  # type: ignore[misc]
        script = Script(line)
        victim = script.submit(1, 0, "victim", num_predict=12)
        others = [script.submit(1 + n, n, f"mate {n}", num_predict=9) for n in (1, 2)]
        script.run()
        after = line.submit(3, "late", num_predict=6)
        assert after.ended.wait(30)
        assert line.batcher.idle
        assert (line.batcher.running, line.batcher.waiting) == (0, 0)
        line.close()
        assert [other.text for other in others] == [mates[1], mates[2]], moment
        assert after.text == late
        assert victim_text.startswith(victim.text)
        assert victim.ends <= 1
        assert not any(received.error for received in (*others, after, victim))
        moments = max(moments, passed())
        moment += 1
    assert moments > 60


def alone_text(text: str, num_predict: int) -> str:
    line = Line("off", options=LoadOptions(slots=1, context=128, batch=32))
    received = line.submit(1, text, num_predict=num_predict)
    assert received.ended.wait(30)
    line.close()
    return received.text


def calls_of(line: Line, moment: int, action: Callable[[], None]) -> Callable[[], int]:
    """Do ``action`` at the moment with this number: each call of a half has one before it and one
    after it. Returns how many there have been."""
    count = 0

    def tick() -> None:
        nonlocal count
        if count == moment:
            action()
        count += 1

    def watched(work: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any) -> Any:
            tick()
            found = work(*given)
            tick()
            return found

        return call

    compute = watched(line.engine.compute_current)
    line.engine.prepare_next = watched(line.engine.prepare_next)  # type: ignore[method-assign]
    line.engine.compute_current = lambda *given: _With(  # type: ignore[method-assign,assignment,return-value]
        handle := compute(*given), watched(handle.result)
    )
    return lambda: count
