"""The PyTorch engine: same tokens whatever the feed, the chunks, the company and the past."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
from llamacpp_core import GREEDY, Core, Stream
from pytorch_models import VOCAB, tiny

from lhama.backends import devices
from lhama.backends.pytorch.engine import PyTorchEngine, unpack
from lhama.backends.pytorch.loader import load
from lhama.plugins.backend import (
    DROPPED,
    Admit,
    BackendError,
    Copy,
    LoadOptions,
    PreparedStep,
    Row,
    RowResult,
    Sampling,
    Shift,
    StepHandle,
    StepPlan,
    Trim,
)
from lhama.plugins.gguf import read

import torch  # isort: skip - llama.cpp's library comes first

Feed = Literal["device", "host"]
SLOTS = 4


def loaded(path: Path, feed: Feed = "host", **options: int) -> PyTorchEngine:
    chosen = LoadOptions(**({"slots": SLOTS, "context": 256, "batch": 256, "threads": 1} | options))  # type: ignore[arg-type]
    header = read(path, vocabulary=True)
    return load(header, chosen, devices.host(), lambda share, what: None, token_feed=feed)


class DeviceCore(Core):
    """Enqueues a step before it reads the last one's result, as ``device`` feed allows."""

    def run(self, *streams: Stream, kv: Sequence[object] = ()) -> list[list[int]]:
        assert not kv
        admits = tuple(Admit(s.slot, 1, s.sampling, tuple(s.prompt), s.logprobs) for s in streams)
        for s in streams:
            s.fed = s.position = s.scheduled = 0
            s.results = []
        flying: tuple[PreparedStep, StepHandle] | None = None
        last: dict[int, RowResult] = {}
        for step in itertools.count():
            plan = StepPlan(step, self.rows(streams), (), admits)
            if not plan.rows:
                break
            admits = ()
            prepared = self.engine.prepare_next(plan, flying[0] if flying else None)
            handle = self.engine.compute_current(prepared, [0] * len(plan.rows))
            if flying:
                self.take(flying[1], streams, last)
            flying = (prepared, handle)
        if flying:
            self.take(flying[1], streams, last)
        return [s.tokens for s in streams]


@pytest.fixture(scope="module", params=["llama", "gemma3"])
def path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny(tmp_path_factory.mktemp("tiny") / f"{request.param}.gguf", request.param)


@pytest.fixture
def engine(path: Path) -> Iterator[PyTorchEngine]:
    engine = loaded(path)
    yield engine
    engine.close()


def prompt(number: int, length: int) -> list[int]:
    return [1, *[(number * 31 + 17 * index) % (VOCAB - 3) + 3 for index in range(length - 1)]]


def streams() -> list[Stream]:
    """Four requests of different lengths and settings; the first is longer than two windows."""
    chosen = (
        GREEDY,
        Sampling(seed=5, repeat_penalty=1.2, repeat_last_n=16),
        Sampling(seed=6, temperature=1.5, top_k=0, top_p=1.0),
        Sampling(temperature=0.0, presence_penalty=1.0, frequency_penalty=0.5),
    )
    lengths = (40, 3, 17, 9)
    return [
        Stream(slot, prompt(slot, lengths[slot]), 24, sampling)
        for slot, sampling in enumerate(chosen)
    ]


# ----------------------------------------------------------------------------- orders and company


def test_all_orders_give_the_same_tokens(path: Path) -> None:
    found: dict[str, list[list[int]]] = {}
    for feed in ("host", "device"):
        engine = loaded(path, "host" if feed == "host" else "device")
        assert engine.limits.token_feed == feed
        if feed == "host":
            found["host"] = Core(engine, chunk=16).run(*streams())
            found["host, off"] = Core(engine, overlapped=False, chunk=16).run(*streams())
        else:
            found["device"] = DeviceCore(engine, chunk=16).run(*streams())
            found["device, off"] = Core(engine, overlapped=False, chunk=16).run(*streams())
        engine.close()
    assert len(set(map(str, found.values()))) == 1, found


def test_real_model_gives_the_same_tokens_in_all_orders(smollm2: Path) -> None:
    texts = []
    for feed, kind in (("host", Core), ("device", DeviceCore)):
        engine = loaded(smollm2, "host" if feed == "host" else "device", slots=2)
        prompts = [
            engine.tokenizer.encode(text, add_special=True, parse_special=True)
            for text in ("Once upon a time", "The capital of France is")
        ]
        texts.append(
            kind(engine).run(Stream(0, prompts[0], 12), Stream(1, prompts[1], 12, Sampling(seed=9)))
        )
        engine.close()
    assert texts[0] == texts[1]


@pytest.mark.parametrize("chunk", [1, 7, 16])
def test_chunked_prompts_equal_whole_ones(engine: PyTorchEngine, chunk: int) -> None:
    whole = Core(engine).run(Stream(0, prompt(1, 60), 16))
    assert Core(engine, chunk=chunk).run(Stream(1, prompt(1, 60), 16)) == whole


def test_batched_rows_equal_lone_ones(engine: PyTorchEngine) -> None:
    together = Core(engine, chunk=16).run(*streams())
    alone = [Core(engine, chunk=16).run(stream)[0] for stream in streams()]
    assert together == alone


def test_slots_and_former_occupants_do_not_matter(engine: PyTorchEngine) -> None:
    sampling = Sampling(seed=3, repeat_penalty=1.3)
    first = Core(engine).run(Stream(0, prompt(2, 20), 16, sampling))
    Core(engine).run(Stream(3, prompt(9, 50), 8, Sampling(presence_penalty=2.0)))
    assert Core(engine).run(Stream(3, prompt(2, 20), 16, sampling)) == first


# --------------------------------------------------------------------------------- cache and reuse


def test_a_trimmed_slot_goes_on_from_its_prefix(engine: PyTorchEngine) -> None:
    text = prompt(4, 30)
    fresh = Core(engine).run(Stream(0, [*text[:25], *prompt(5, 6)], 12))
    Core(engine).run(Stream(1, text, 4))
    rest = Stream(1, prompt(5, 6), 12, start=25, history=(*text[:25], *prompt(5, 6)))
    assert resumed(engine, rest, Trim(1, 25)) == fresh[0]


def test_a_copied_prefix_serves_another_slot(engine: PyTorchEngine) -> None:
    text = prompt(6, 30)
    fresh = Core(engine).run(Stream(0, [*text[:20], *prompt(7, 9)], 12))
    Core(engine).run(Stream(1, text, 4))
    rest = Stream(2, prompt(7, 9), 12, start=20, history=(*text[:20], *prompt(7, 9)))
    assert resumed(engine, rest, Copy(1, 2, 20)) == fresh[0]


def resumed(engine: PyTorchEngine, stream: Stream, operation: Trim | Copy) -> list[int]:
    """Run ``stream`` behind ``start`` cached positions."""
    start, tokens, position = stream.start, list(stream.prompt), stream.start
    admits = (Admit(stream.slot, 2, stream.sampling, stream.history or ()),)
    kv: tuple[Trim | Copy, ...] = (operation,)
    found: list[int] = []
    assert start
    for step in range(stream.count):
        plan = StepPlan(step, (Row(stream.slot, 2, position, tuple(tokens)),), kv, admits)
        handle = engine.compute_current(engine.prepare_next(plan, None), [0])
        position += len(tokens)
        tokens = [handle.result().rows[0].token]
        found += tokens
        kv, admits = (), ()
    return found


def test_shifts_are_refused_and_not_offered(engine: PyTorchEngine) -> None:
    assert engine.limits.features == {"copy"}
    plan = StepPlan(0, (), (Shift(0, 1, 2),))
    with pytest.raises(BackendError, match="cannot shift"):
        engine.compute_current(engine.prepare_next(plan, None), []).result()
    assert Core(engine).run(Stream(0, prompt(1, 5), 3))[0]


# ------------------------------------------------------------------------------- steps as a whole


def started(engine: PyTorchEngine, *rows: Row, sampling: Sampling = GREEDY) -> StepHandle:
    admits = tuple(Admit(row.slot, row.epoch, sampling, row.tokens, 2) for row in rows)
    prepared = engine.prepare_next(StepPlan(0, rows, (), admits), None)
    return engine.compute_current(prepared, [0] * len(rows))


def test_dropped_rows_are_not_computed(engine: PyTorchEngine) -> None:
    rows = tuple(Row(slot, 1, 0, tuple(prompt(slot, 5))) for slot in range(3))
    started(engine, *rows).result()
    expected = started(engine, *rows).result().rows
    with torch.inference_mode():
        engine._cache.keys[:, 1, 5:] = 7.0
    follow = tuple(Row(slot, 1, 5) for slot in range(3))
    prepared = engine.prepare_next(StepPlan(1, follow), None)
    fed = [expected[0].token, DROPPED, expected[2].token]
    after = engine.compute_current(prepared, fed).result().rows
    assert [row.slot for row in after] == [0, 2]
    assert (engine._cache.keys[:, 1, 5:] == 7.0).all()
    for row in (0, 2):
        longer = Row(3, 1, 0, (*rows[row].tokens, expected[row].token))
        assert started(engine, longer).result().rows[0].token == after[row // 2].token
    prepared = engine.prepare_next(StepPlan(2, tuple(replace(r, position=6) for r in follow)), None)
    assert engine.compute_current(prepared, [DROPPED] * 3).result().rows == ()


def test_unsampled_rows_give_no_results(engine: PyTorchEngine) -> None:
    rows = (Row(0, 1, 0, (1, 5), sample=False), Row(1, 4, 0, (1, 9)))
    result = started(engine, *rows).result()
    assert [(row.slot, row.epoch) for row in result.rows] == [(1, 4)]
    assert result.compute_ns > 0
    assert len(result.rows[0].top) == 2
    assert result.rows[0].logprob == pytest.approx(result.rows[0].top[0][1])
    assert started(engine, replace(rows[1], sample=False)).result().rows == ()


@pytest.mark.parametrize("feed", ["host", "device"])
def test_a_poisoned_row_fails_alone(path: Path, feed: Feed) -> None:
    engine = loaded(path, feed)
    rows = tuple(Row(slot, 1, 0, tuple(prompt(slot, 5))) for slot in range(3))
    first = started(engine, *rows).result().rows
    follow = tuple(Row(slot, 1, 5) for slot in range(3))

    def second() -> tuple[RowResult, ...]:
        prepared = engine.prepare_next(StepPlan(1, follow), None)
        return engine.compute_current(prepared, [row.token for row in first]).result().rows

    clean = second()
    started(engine, *rows).result()
    with torch.inference_mode():
        engine._cache.values[:, 1, 2] = torch.nan
    poisoned = second()
    assert "not finite" in poisoned[1].error
    assert [poisoned[i].token for i in (0, 2)] == [clean[i].token for i in (0, 2)]
    # Whoever takes the slot next reads nothing of what is left there.
    again = started(engine, Row(1, 2, 0, tuple(prompt(1, 5)))).result().rows[0]
    assert (again.token, again.error) == (first[1].token, "")
    engine.close()


@pytest.mark.parametrize("feed", ["host", "device"])
def test_late_masks_decide_what_is_drawn(path: Path, feed: Feed) -> None:
    engine = loaded(path, feed)
    rows = (
        Row(0, 1, 0, tuple(prompt(0, 5)), masked=True),
        Row(1, 1, 0, tuple(prompt(1, 5))),
        Row(2, 1, 0, tuple(prompt(2, 5)), masked=True),
    )
    free = started(engine, *[replace(row, masked=False) for row in rows]).result().rows
    handle = started(engine, *rows)
    mask = bytearray((VOCAB + 31) // 32 * 4)
    mask[77 // 8] |= 1 << 77 % 8
    results: list[tuple[RowResult, ...]] = []
    waiting = threading.Thread(target=lambda: results.append(handle.result().rows))
    waiting.start()
    waiting.join(0.2)
    assert waiting.is_alive()
    handle.supply_masks({0: bytes(mask), 2: bytes(len(mask))})
    waiting.join()
    (rows_found,) = results
    assert rows_found[0].token == 77
    assert rows_found[1].token == free[1].token
    assert "allows no token" in rows_found[2].error
    # The token drawn under the mask is what the next step is fed.
    prepared = engine.prepare_next(StepPlan(1, (Row(0, 1, 5),)), None)
    after = engine.compute_current(prepared, [77]).result().rows[0].token
    longer = started(engine, Row(3, 1, 0, (*rows[0].tokens, 77))).result().rows[0].token
    assert after == longer
    engine.close()


def test_masks_are_little_endian_bits() -> None:
    allowed = unpack(bytes([0b101, 0, 0, 0x80, 1, 0, 0, 0]), 40)
    assert allowed.nonzero().flatten().tolist() == [0, 2, 31, 32]
    assert unpack(bytes([0xFF] * 4), 40).sum() == 32


def test_plans_beyond_the_limits_are_refused(engine: PyTorchEngine) -> None:
    plans = {
        "exceed the batch": Row(0, 1, 0, (1,) * 257, sample=False),
        "beyond the context": Row(0, 1, 250, (1,) * 7, sample=False),
        "without an admission": Row(2, 1, 0, (1,)),
    }
    for text, row in plans.items():
        with pytest.raises(BackendError, match=text):
            engine.prepare_next(StepPlan(0, (row,)), None)


def test_closing_ends_the_thread(path: Path) -> None:
    before = threading.active_count()
    engine = loaded(path)
    assert threading.active_count() == before + 1
    engine.close()
    assert threading.active_count() == before


def test_generating_engines_do_not_embed(engine: PyTorchEngine) -> None:
    with pytest.raises(BackendError, match="does not support embeddings"):
        engine.embed([[1, 2]])
