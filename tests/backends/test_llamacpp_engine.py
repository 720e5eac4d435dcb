"""The llama.cpp engine against real models: same tokens whatever the order, chunks and company."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

pytest.importorskip("llama_cpp")

from llamacpp_core import GREEDY, Core, Stream

from lhama.backends.llamacpp import loader
from lhama.backends.llamacpp.backend import LlamaCppBackend
from lhama.backends.llamacpp.batch import Batch
from lhama.backends.llamacpp.engine import LlamaCppEngine
from lhama.backends.llamacpp.lane import Lane, compare
from lhama.backends.llamacpp.leveling import LONGEST_GAP, MOST, Span, fillers
from lhama.backends.llamacpp.library import np
from lhama.plugins.backend import (
    DROPPED,
    Admit,
    BackendError,
    Copy,
    Engine,
    LoadOptions,
    ModelFiles,
    OutOfMemory,
    Row,
    Sampling,
    Shift,
    StepPlan,
    Trim,
    UnsupportedModel,
)

PROMPTS = (
    "The capital of France is",
    "Once upon a time, in a small village,",
    "def fibonacci(n):\n",
    "The three laws of robotics are as follows: 1.",
    "Q: How many legs has a spider?\nA:",
    "Dear Sir or Madam,\n\nI am writing to",
    "1, 2, 3, 4, 5, 6,",
    "A recipe for pancakes: take two eggs and",
)
ALL = tuple(Trim(slot, 0) for slot in range(8))


def load(path: Path, **options: object) -> Engine:
    settings = {"slots": 8, "context": 512, "batch": 256, "threads": 1} | options
    return LlamaCppBackend().load(
        ModelFiles(path.name, str(path)),
        LoadOptions(**settings),  # type: ignore[arg-type]
        lambda share, text: None,
    )


@pytest.fixture(scope="module")
def engine(smollm2: Path) -> Iterator[Engine]:
    engine = load(smollm2)
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def prompts(engine: Engine) -> list[list[int]]:
    encode = engine.tokenizer.encode
    return [encode(text, add_special=True, parse_special=True) for text in PROMPTS]


@pytest.fixture(scope="module")
def alone(engine: Engine, prompts: list[list[int]]) -> list[list[int]]:
    """What each prompt gives when nobody else is there, one half after the other."""
    core = Core(engine, overlapped=False)
    return [core.run(Stream(0, prompt, 24), kv=ALL)[0] for prompt in prompts]


def text(engine: Engine, tokens: list[int]) -> str:
    return b"".join(engine.tokenizer.piece(token) for token in tokens).decode()


def test_greedy_text_is_sensible(engine: Engine, alone: list[list[int]]) -> None:
    assert text(engine, alone[0]).startswith(" Paris.")
    assert "return fibonacci" in text(engine, alone[2])


def test_overlapped_halves_give_the_same_tokens(
    engine: Engine, prompts: list[list[int]], alone: list[list[int]]
) -> None:
    core = Core(engine)
    assert [core.run(Stream(0, prompt, 24), kv=ALL)[0] for prompt in prompts] == alone


def test_chunked_prefill_gives_the_same_tokens(
    engine: Engine, prompts: list[list[int]], alone: list[list[int]]
) -> None:
    core = Core(engine, chunk=7)
    assert [core.run(Stream(0, prompt, 24), kv=ALL)[0] for prompt in prompts] == alone


def test_eight_streams_in_one_batch_get_the_tokens_they_get_alone(
    engine: Engine, prompts: list[list[int]], alone: list[list[int]]
) -> None:
    core = Core(engine)
    streams = [Stream(slot, prompt, 24) for slot, prompt in enumerate(prompts)]
    assert core.run(*streams, kv=ALL) == alone
    assert core.batch_sizes == [8] * 24


def test_a_long_prompt_does_not_change_with_its_batch(
    smollm2: Path, prompts: list[list[int]]
) -> None:
    """Beyond 64 tokens, and beyond 256 cells with two threads, ggml has other kernels."""
    engine = load(smollm2, slots=3, threads=2)
    try:
        long = (prompts[1] * 40)[:300]
        [expected] = Core(engine, overlapped=False, chunk=200).run(Stream(0, long, 12))
        streams = [Stream(0, prompts[0], 16), Stream(1, long, 12), Stream(2, prompts[2], 3)]
        kv = [Trim(slot, 0) for slot in range(3)]
        assert Core(engine, chunk=100).run(*streams, kv=kv)[1] == expected
    finally:
        engine.close()


def test_streams_in_scattered_slots(
    engine: Engine, prompts: list[list[int]], alone: list[list[int]]
) -> None:
    slots = (5, 0, 7)
    streams = [Stream(slot, prompts[slot], 24) for slot in slots]
    assert Core(engine).run(*streams, kv=ALL) == [alone[slot] for slot in slots]


def test_prefix_reuse_by_trim(
    engine: Engine, prompts: list[list[int]], alone: list[list[int]]
) -> None:
    core = Core(engine)
    core.run(Stream(0, [*prompts[1][:6], *prompts[2]], 8), kv=ALL)
    [tokens] = core.run(Stream(0, prompts[1], 24, start=6), kv=[Trim(0, 6)])
    assert tokens == alone[1]


def test_prefix_reuse_by_copy(
    engine: Engine, prompts: list[list[int]], alone: list[list[int]]
) -> None:
    core = Core(engine)
    core.run(Stream(3, prompts[1], 8), kv=ALL)
    both = [Stream(0, prompts[1], 24, start=6), Stream(3, prompts[1], 24, start=6)]
    assert core.run(*both, kv=[Copy(3, 0, 6), Trim(3, 6)]) == [alone[1], alone[1]]


def test_shift_moves_the_rest_down(engine: Engine, prompts: list[list[int]]) -> None:
    """A cache shifted goes on as one that never held the dropped tokens' positions would."""
    core = Core(engine)
    prompt = (prompts[3] * 10)[:100]
    core.run(Stream(0, prompt, 1), kv=ALL)
    [first] = core.run(Stream(0, [*prompt[:60], 42], 8, start=60), kv=[Shift(0, 4, 40)])
    assert len(set(first)) > 2
    core.run(Stream(1, prompt, 1), kv=ALL)
    [again] = core.run(Stream(1, [*prompt[:60], 42], 8, start=60), kv=[Shift(1, 4, 40)])
    assert again == first


def test_shift_leaves_a_copy_alone(
    engine: Engine, prompts: list[list[int]], alone: list[list[int]]
) -> None:
    core = Core(engine)
    core.run(Stream(0, prompts[1], 1), kv=ALL)
    last = len(prompts[1]) - 1
    kv = [Copy(0, 1, last), Shift(0, 2, 3)]
    assert core.run(Stream(1, prompts[1], 24, start=last), kv=kv) == [alone[1]]


def test_a_dropped_row_leaves_the_others_alone(
    engine: Engine, prompts: list[list[int]], alone: list[list[int]]
) -> None:
    plan = StepPlan(
        0,
        tuple(Row(slot, 1, 0, tuple(prompts[slot])) for slot in range(3)),
        ALL,
        tuple(Admit(slot, 1, GREEDY, ()) for slot in range(3)),
    )
    prepared = engine.prepare_next(plan, None)
    rows = engine.compute_current(prepared, [0, -1, 0]).result().rows
    assert [(row.slot, row.token) for row in rows] == [(0, alone[0][0]), (2, alone[2][0])]
    nothing = engine.compute_current(engine.prepare_next(plan, prepared), [-1, -1, -1])
    assert nothing.result().rows == ()


def test_seeded_sampling_does_not_depend_on_slot_or_company(
    engine: Engine, prompts: list[list[int]]
) -> None:
    core = Core(engine)
    sampling = Sampling(temperature=1.0, top_k=40, top_p=0.95, seed=1234)
    [expected] = core.run(Stream(0, prompts[1], 24, sampling), kv=ALL)
    other = Sampling(temperature=1.2, top_k=0, top_p=1.0, seed=99)
    mates = [Stream(slot, prompts[slot], 24, other) for slot in (0, 2)]
    assert core.run(Stream(5, prompts[1], 24, sampling), *mates, kv=ALL)[0] == expected
    changed = Sampling(temperature=1.0, top_k=40, top_p=0.95, seed=1235)
    assert core.run(Stream(0, prompts[1], 24, changed), kv=ALL) != [expected]


def test_masked_rows_give_allowed_tokens_only(
    engine: Engine, prompts: list[list[int]], alone: list[list[int]]
) -> None:
    allowed = [100, 200, 300]
    bits = np.zeros((engine.limits.vocab + 31) // 32 * 32, np.uint8)
    bits[allowed] = 1
    mask = np.packbits(bits, bitorder="little").tobytes()
    drawn = Sampling(seed=3)
    plan = StepPlan(
        0,
        tuple(Row(slot, 1, 0, tuple(prompts[slot]), masked=slot != 1) for slot in range(4)),
        ALL,
        tuple(Admit(slot, 1, drawn if slot == 2 else GREEDY, ()) for slot in range(4)),
    )
    handle = engine.compute_current(engine.prepare_next(plan, None), [0, 0, 0, 0])
    later = threading.Timer(0.05, handle.supply_masks, [{0: mask, 2: mask, 3: b"\0" * len(mask)}])
    later.start()
    rows = handle.result().rows
    later.join()
    assert rows[0].token in allowed
    assert rows[1].token == alone[1][0]
    assert rows[2].token in allowed
    assert rows[3].error == "no token is allowed here"


def test_a_row_of_nan_ends_one_request(
    engine: Engine,
    prompts: list[list[int]],
    alone: list[list[int]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    context = engine._lanes[0].context  # type: ignore[attr-defined]
    read, steps = context.logits, iter(range(100))

    def damaged(count: int) -> np.ndarray:
        rows = read(count)
        if next(steps) == 3:
            rows[1, 77] = np.nan
        return rows

    monkeypatch.setattr(context, "logits", damaged)
    streams = [Stream(slot, prompts[slot], 12) for slot in range(3)]
    core = Core(engine, overlapped=False)
    core.run(*streams, kv=ALL)
    assert streams[0].tokens == alone[0][:12]
    assert streams[2].tokens == alone[2][:12]
    assert [bool(row.error) for row in streams[1].results] == [False, False, False, True]


def test_a_step_that_fails_raises_and_the_engine_lives(
    engine: Engine, prompts: list[list[int]], alone: list[list[int]]
) -> None:
    plan = StepPlan(0, (Row(0, 1, 0, (engine.limits.vocab + 5,)),), ALL, (Admit(0, 1, GREEDY, ()),))
    handle = engine.compute_current(engine.prepare_next(plan, None), [0])
    with pytest.raises(BackendError, match="refused the batch"):
        handle.result()
    assert Core(engine).run(Stream(0, prompts[0], 24), kv=ALL) == [alone[0]]
    big = StepPlan(0, (Row(0, 1, 0, (1,) * (engine.limits.batch_tokens + 1)),))
    with pytest.raises(BackendError, match="more than 256 tokens"):
        engine.prepare_next(big, None)


def test_embeddings_need_a_model_loaded_for_them(engine: Engine) -> None:
    with pytest.raises(BackendError, match="does not support embeddings"):
        engine.embed([[1, 2, 3]])


def test_gemma_answers_and_reuses_prefixes_beyond_its_window(gemma3: Path) -> None:
    """Sliding window of 512: a cache that kept no more could not be trimmed back."""
    engine = load(gemma3, slots=2, context=1024)
    try:
        core = Core(engine, chunk=200)
        prompt = engine.tokenizer.encode(
            "The capital of France is Paris. " * 80, add_special=True, parse_special=False
        )
        assert len(prompt) > 540
        [expected] = core.run(Stream(0, prompt, 12), kv=[Trim(0, 0)])
        assert "capital of France is" in text(engine, expected)
        [again] = core.run(Stream(0, prompt, 12, start=400), kv=[Trim(0, 400)])
        assert again == expected
    finally:
        engine.close()


def test_close_leaves_no_thread(smollm2: Path) -> None:
    before = set(threading.enumerate())
    engine = load(smollm2, slots=1, context=64)

    assert set(threading.enumerate()) - before
    engine.close()
    assert set(threading.enumerate()) == before


@pytest.mark.parametrize("keep", [0, 3, 1000, 50_000_000])
def test_a_file_cut_short_is_refused_in_words(smollm2: Path, tmp_path: Path, keep: int) -> None:
    path = tmp_path / "cut.gguf"
    with smollm2.open("rb") as source:
        path.write_bytes(source.read(keep))
    with pytest.raises(UnsupportedModel, match=r"truncated|not a GGUF"):
        load(path)


def test_a_random_file_and_none_are_refused_in_words(tmp_path: Path) -> None:
    path = tmp_path / "random.gguf"
    path.write_bytes(bytes(range(256)) * 64)
    with pytest.raises(UnsupportedModel, match="not a GGUF file"):
        load(path)
    with pytest.raises(BackendError, match="cannot read"):
        load(tmp_path / "none.gguf")


def test_more_memory_than_there_is_is_refused_before_loading(smollm2: Path) -> None:
    with pytest.raises(OutOfMemory, match=r"requires more system memory \(\d+\.\d MiB\)"):
        load(smollm2, context=2_000_000_000)


def test_importing_the_engine_takes_llama_cpp_before_numpy() -> None:
    """Some CUDA builds crash the other way round."""
    script = """
import builtins, sys
order, inner = [], builtins.__import__
def watch(name, *rest):
    if name.partition(".")[0] in ("llama_cpp", "numpy") and name not in sys.modules:
        order.append(name.partition(".")[0])
    return inner(name, *rest)
builtins.__import__ = watch
import lhama.backends.llamacpp.plugin
assert not order, order
import lhama.backends.llamacpp.loader
assert order[0] == "llama_cpp" and "numpy" in order, order
"""
    subprocess.run([sys.executable, "-P", "-c", script], check=True)


def test_a_step_filled_up_changes_no_answer_and_no_idle_slot(
    engine: LlamaCppEngine,
    prompts: list[list[int]],
    alone: list[list[int]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Idle slots between busy ones, and prompts of all lengths beside answers (``leveling``)."""
    monkeypatch.setattr(engine._lanes[0].context, "_levels", True)
    core = Core(engine)
    core.run(Stream(4, prompts[4][:-1], 1), kv=ALL)  # slot 4 holds something, 1 to 3 nothing
    streams = [Stream(slot, prompts[slot], 24) for slot in (0, 5, 7)]
    kv = [Trim(slot, 0) for slot in (0, 5, 7)]
    assert core.run(*streams, kv=kv) == [alone[slot] for slot in (0, 5, 7)]
    kept = len(prompts[4]) - 1
    assert core.run(Stream(4, prompts[4], 24, start=kept), kv=[Trim(4, kept)]) == [alone[4]]
    late = [Stream(slot, prompts[slot], 24 - 2 * slot) for slot in range(8)]
    assert core.run(*late, kv=ALL) == [alone[slot][: 24 - 2 * slot] for slot in range(8)]
    # An answer's row beside four fillers takes another kernel, whose last bits may break a tie.
    pieces = Core(engine, chunk=5).run(*late, kv=ALL)
    assert [tokens[:8] for tokens in pieces] == [tokens[:8] for tokens in alone]


def test_a_batch_is_filled_up_after_its_rows() -> None:
    batch = Batch(64)
    rows = (Row(0, 1, 9), Row(2, 1, 3, (5, 6, 7)), Row(3, 1, 8, (4,)))
    batch.fill(rows)
    assert batch.bind([11, 0, 0]) == list(rows)
    found = batch.level(cells=99, used=lambda sequence: 40 + sequence)
    assert [tuple(filler)[1:] for filler in found] == [(0, 10, 2), (1, 41, 3), (3, 9, 2)]
    count = batch.struct.n_tokens
    assert batch.sequence[:count].tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert batch.position[:count].tolist() == [9, 10, 11, 41, 42, 43, 3, 4, 5, 8, 9, 10]
    assert batch.token[:count].tolist() == [11, 0, 0, 0, 0, 0, 5, 6, 7, 4, 0, 0]
    assert batch.output[:count].tolist() == [1, 0, 0, 0, 0, 0, 0, 0, 1, 1, 0, 0]

    batch.fill(rows)
    assert batch.bind([11, DROPPED, 0]) == [rows[0], rows[2]]
    assert [f.sequence for f in batch.level(99, lambda sequence: 5)] == [1, 2]
    assert batch.sequence[: batch.struct.n_tokens].tolist() == [0, 1, 2, 3]


def test_fillers_are_put_in_where_they_are_worth_it() -> None:
    def used(sequence: int) -> int:
        return 7

    lone = [Span(3, 0, 200, 0)]
    assert fillers(lone, 50, 512, used) == []
    close = [Span(0, 0, 1, 9), Span(2, 1, 2, 9)]
    assert [f.sequence for f in fillers(close, 50, 512, used)] == [1]
    assert fillers(close, 50, 7, used) == [], "an idle slot that is full cannot take one more"
    assert fillers(close, 0, 512, used) == [], "no room in the batch"
    far = [Span(0, 0, 1, 9), Span(LONGEST_GAP + 2, 1, 2, 9)]
    assert fillers(far, 50, 512, used) == []
    long = [Span(0, 0, 1, 9), Span(1, 1, 2, 9), Span(3, 2, 3 + MOST, 0)]
    assert [f.sequence for f in fillers(long, 999, 512, used)] == [2], "the gap, not the lengths"


def test_two_contexts_of_half_the_slots_each(
    smollm2: Path,
    prompts: list[list[int]],
    alone: list[list[int]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The lanes an accelerator gets: everybody's tokens, a copy and a shift inside a group."""
    monkeypatch.setattr(loader._Loading, "on_device", property(lambda self: True))
    verdicts = []

    def forced(lanes: Sequence[Lane], vocab: int) -> tuple[bool, str]:
        verdicts.append(compare(lanes, vocab)[1])
        return True, verdicts[-1]

    monkeypatch.setattr(loader, "compare", forced)
    engine = load(smollm2)
    try:
        assert engine.limits.groups == 2
        assert engine.residency.notes == tuple(verdicts)
        assert "two half-batches" in verdicts[0]
        for first in (0, 4):
            core = Core(engine, group=first // 4)
            kv = [Trim(slot, 0) for slot in range(first, first + 4)]
            streams = [Stream(first + n, prompts[first + n], 24) for n in range(4)]
            assert core.run(*streams, kv=kv) == alone[first : first + 4]
            kept = len(prompts[first]) - 1
            again = [Copy(first, first + 1, kept)]
            assert core.run(Stream(first + 1, prompts[first], 24, start=kept), kv=again) == [
                alone[first]
            ]
    finally:
        engine.close()


def test_one_context_where_two_are_no_faster(
    smollm2: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loader._Loading, "on_device", property(lambda self: True))
    monkeypatch.setattr(loader, "compare", lambda lanes, vocab: (False, "one context"))
    engine = load(smollm2)
    assert (engine.limits.groups, engine.residency.notes) == (1, ("one context",))
    engine.close()
