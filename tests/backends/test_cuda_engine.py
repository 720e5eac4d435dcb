"""The CUDA engine as a whole, on a processor: its logits are the plain engine's, and a row's trouble
stays the row's."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import product
from pathlib import Path

import gluon_on_numpy
import pytest
import torch
from cuda_on_numpy import engine_of
from pytorch_models import HEAD_DIM, VOCAB, WIDTH, tiny
from quantised_models import quantised

from lhama.backends import devices
from lhama.backends.pytorch.cuda.engine import CudaEngine
from lhama.backends.pytorch.cuda.steps import Kind, Sizes, Steps
from lhama.backends.pytorch.engine import PyTorchEngine
from lhama.backends.pytorch.loader import load
from lhama.plugins.backend import (
    DROPPED,
    Admit,
    BackendError,
    Copy,
    EngineLost,
    KvOp,
    LoadOptions,
    Row,
    RowResult,
    Sampling,
    StepPlan,
    Trim,
)
from lhama.plugins.gguf import read

GREEDY = Sampling(temperature=0.0)
MIXED = {"": "Q4_K", "attn_v": "Q6_K", "ffn_down": "Q6_K", "output.weight": "Q6_K"}
PHI = {"": "Q4_K", "attn_qkv": "Q5_K", "ffn_down": "Q6_K", "output.weight": "Q6_K"}
UNLIKE = {"": "Q8_0", "blk.1.ffn_gate": "BF16", "blk.1.ffn_up": "BF16"}
EXPERTS = {"": "Q4_0", "attn_v": "Q8_0", "ffn_gate_inp": "F32", "ffn_down": "F16"}
WARMED = {"llama": MIXED, "qwen3moe": EXPERTS}
GEMMA = {"": "Q5_0", "attn_v": "Q8_0", "attn_output": "Q4_K", "token_embd": "Q8_0"}


BENT = {
    "gemma2": {"attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0},
    "llama-yarn": {
        "rope.scaling.type": "yarn",
        "rope.scaling.factor": 4.0,
        "rope.scaling.original_context_length": 512,
    },
    "phi3": {
        "rope.dimension_count": 48,
        "rope.scaling.attn_factor": 1.19,
        "rope.scaling.original_context_length": 64,
    },
    "llama-mixture": {
        "expert_count": 4,
        "expert_used_count": 2,
        "expert_feed_forward_length": 256,
    },
    "qwen3moe": {
        "expert_count": 10,
        "expert_used_count": 3,
        "expert_feed_forward_length": 96,
    },
}
"""What the header says beyond the plain, so that it shows in the logits."""


def text(seed: int, length: int) -> tuple[int, ...]:
    return tuple((seed * 31 + 17 * at) % (VOCAB - 3) + 3 for at in range(length))


def plain(path: Path) -> PyTorchEngine:
    options = LoadOptions(slots=1, context=192, batch=192)
    engine = load(read(path, vocabulary=True), options, devices.host(), lambda share, what: None)
    assert isinstance(engine, PyTorchEngine)
    return engine


def wanted_logits(path: Path, texts: Sequence[Sequence[int]]) -> list[torch.Tensor]:
    """Of every position, by the plain engine in float32."""
    engine = plain(path)
    found = []
    for tokens in texts:
        row = Row(0, 1, 0, tuple(tokens), sample=False)
        batch = engine.prepare_next(StepPlan(0, (row,)), None).batch
        with torch.inference_mode():
            hidden = engine._model.forward(batch, batch.ids, engine._cache)
            found.append(engine._model.logits(hidden))
    engine.close()
    return found


class Stepper:
    """Runs plans one by one."""

    def __init__(self, engine: CudaEngine) -> None:
        self.engine = engine
        self.step = 0
        self._places: dict[int, int] = {}

    def __call__(
        self,
        *rows: Row,
        kv: tuple[KvOp, ...] = (),
        admits: Sequence[Admit] = (),
        dropped: Sequence[int] = (),
    ) -> tuple[RowResult, ...]:
        self.step += 1
        plan = StepPlan(self.step, rows, kv, tuple(admits))
        prepared = self.engine.prepare_next(plan, None)
        staged = prepared.staged
        self._places = {
            row.slot: place for row, place in zip(staged.rows, staged.places, strict=True)
        }
        tokens = [DROPPED if row.slot in dropped else 0 for row in rows]
        return self.engine.compute_current(prepared, tokens).result().rows

    def logits(self, slot: int) -> torch.Tensor:
        """float32 [vocab] of the last step."""
        return self.engine._steps.logits[self._places[slot]]


def admit(
    slot: int, sampling: Sampling = GREEDY, history: Sequence[int] = (), **more: int
) -> Admit:
    return Admit(slot, 1, sampling, tuple(history), **more)


def error(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return ((found - wanted).norm() / wanted.norm()).item()


@pytest.mark.parametrize(
    ("family", "types", "kv_type", "single", "several"),
    [
        ("llama", MIXED, "f16", 0.02, 0.01),
        ("gemma3", GEMMA, "f16", 0.002, 0.002),
        ("qwen2", {"": "Q8_0"}, "q8_0", 0.02, 0.02),
        ("qwen3", {"": "BF16"}, "f16", 0.02, 0.02),
        ("gemma2", GEMMA, "f16", 0.002, 0.002),
        ("llama-yarn", MIXED, "f16", 0.02, 0.02),
        ("llama", UNLIKE, "f16", 0.01, 0.01),
        ("phi3", PHI, "f16", 0.02, 0.02),
        ("llama-mixture", {**MIXED, "ffn_gate_inp": "F32"}, "f16", 0.03, 0.03),
        ("qwen3moe", EXPERTS, "f16", 0.01, 0.01),
    ],
)
def test_logits_are_the_plain_engines(
    tmp_path: Path, family: str, types: dict[str, str], kv_type: str, single: float, several: float
) -> None:
    """Long and short chunks, one row, several rows, and all of it mixed."""
    path = quantised(
        tmp_path / "model.gguf", family.partition("-")[0], types, metadata=BENT.get(family)
    )
    texts = [text(1, 80), text(2, 20), text(3, 9)]
    wanted = wanted_logits(path, texts)
    engine = engine_of(path, kv_type=kv_type)
    step = Stepper(engine)
    step(Row(0, 1, 0, texts[0][:70]), admits=[admit(0)])  # more tokens than codes are used for
    assert error(step.logits(0), wanted[0][69]) < several
    for at in range(70, 72):
        step(Row(0, 1, at, texts[0][at : at + 1]))
        assert error(step.logits(0), wanted[0][at]) < single
    step(
        Row(0, 1, 72, texts[0][72:73]),
        Row(1, 1, 0, texts[1][:10]),
        Row(2, 1, 0, texts[2][:3], sample=False),
        admits=[admit(1), admit(2)],
    )
    assert error(step.logits(0), wanted[0][72]) < several
    assert error(step.logits(1), wanted[1][9]) < several
    for at in range(2):
        begins = ((0, 73 + at), (1, 10 + at), (2, 3 + at))
        step(*(Row(slot, 1, p, texts[slot][p : p + 1]) for slot, p in begins))
        for slot, position in begins:
            assert error(step.logits(slot), wanted[slot][position]) < several
    step(Row(1, 1, 12, texts[1][12:17]), Row(2, 1, 5, texts[2][5:6]))
    assert error(step.logits(2), wanted[2][5]) < several
    assert error(step.logits(1), wanted[1][16]) < several
    engine.close()


def test_twenty_heads_share_keys_and_values(tmp_path: Path) -> None:
    """More than a tensor core takes at once."""
    queries, keys = 20 * HEAD_DIM, HEAD_DIM
    shapes = {"attn_q": queries, "attn_k": keys, "attn_v": keys}
    path = tiny(
        tmp_path / "model.gguf",
        "llama",
        layers=1,
        metadata={"attention.head_count": 20, "attention.head_count_kv": 1},
        extra={
            **{f"blk.0.{name}.weight": (WIDTH, size) for name, size in shapes.items()},
            "blk.0.attn_output.weight": (queries, WIDTH),
        },
    )
    wanted = wanted_logits(path, [text(1, 80)])[0]
    step = Stepper(engine_of(path))
    step(Row(0, 1, 0, text(1, 79)), admits=[admit(0)])
    assert error(step.logits(0), wanted[78]) < 0.01
    step(Row(0, 1, 79, text(1, 80)[79:]))
    assert error(step.logits(0), wanted[79]) < 0.01
    step.engine.close()


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny(tmp_path_factory.mktemp("tiny") / "llama.gguf", "llama", layers=2)


@pytest.fixture
def step(path: Path) -> Iterator[Stepper]:
    engine = engine_of(path)
    yield Stepper(engine)
    engine.close()


CHOSEN = (
    Sampling(temperature=0.0),
    Sampling(seed=5, temperature=1.0, repeat_penalty=1.2, repeat_last_n=16),
    Sampling(seed=6, temperature=0.3, top_k=0, top_p=1.0, typical_p=0.9),
)


def test_tokens_are_the_plain_engines(path: Path, step: Stepper) -> None:
    """Greedy, drawn by the kernels with penalties, drawn the general way; float32 weights."""
    reference = plain(path)
    for slot, sampling in enumerate(CHOSEN):
        prompt = text(slot, 20)
        tokens = list(prompt)
        with torch.inference_mode():
            for _ in range(6):
                rows = (Row(0, 1, 0, tuple(tokens)),)
                admits = (Admit(0, 1, sampling, tuple(tokens)),)
                prepared = reference.prepare_next(StepPlan(0, rows, (), admits), None)
                tokens.append(reference.compute_current(prepared, [0]).result().rows[0].token)
        found = [step(Row(slot, 1, 0, prompt), admits=[admit(slot, sampling, prompt)])[0].token]
        found += [step(Row(slot, 1, 20 + n))[0].token for n in range(5)]
        assert found == tokens[20:]
    reference.close()


def test_rows_that_ended_meanwhile_leave_no_trace(step: Stepper) -> None:
    prompts = [text(slot, 12) for slot in range(3)]
    admits = [admit(slot, history=prompts[slot]) for slot in range(3)]
    step(*(Row(slot, 1, 0, prompts[slot]) for slot in range(3)), admits=admits)
    alone = [step(Row(0, 1, 12 + n))[0].token for n in range(3)]
    step(
        *(Row(slot, 1, 0, prompts[slot]) for slot in range(3)),
        kv=tuple(Trim(s, 0) for s in range(3)),
    )
    before = step.engine._cache._lines.clone()
    found = step(*(Row(slot, 1, 12) for slot in range(3)), dropped=[1])
    assert [row.slot for row in found] == [0, 2]
    page = step.engine._pages._tables[1][0]
    assert torch.equal(step.engine._cache._lines[:, :, page], before[:, :, page])
    assert found[0].token == alone[0]
    # The same of a prompt's chunk.
    found = step(Row(0, 1, 13), Row(1, 1, 12, text(9, 5)), dropped=[1])
    assert [row.token for row in found] == [alone[1]]
    assert torch.equal(step.engine._cache._lines[:, :, page], before[:, :, page])


def test_a_copied_beginning_is_the_same_beginning(step: Stepper) -> None:
    prompt = text(4, 70)
    wanted = step(Row(0, 1, 0, prompt), admits=[admit(0)])[0].token
    free = step.engine._pages.free
    kv = (Copy(0, 1, 69),)
    found = step(Row(1, 1, 69, prompt[69:]), kv=kv, admits=[admit(1)])[0].token
    assert found == wanted
    assert step.engine._pages.free == free - 1  # one page is shared, one was copied
    follow = [step(Row(slot, 1, 70))[0].token for slot in (0, 1)]
    assert follow[0] == follow[1]


def test_masks_faults_and_logprobs_reach_their_rows(step: Stepper) -> None:
    rows = tuple(Row(slot, 1, 0, text(slot, 20), masked=slot == 0) for slot in range(3))
    admits = (admit(0), admit(1), Admit(2, 1, GREEDY, (), logprobs=2))
    engine = step.engine
    prepared = engine.prepare_next(StepPlan(0, rows, (), admits), None)
    handle = engine.compute_current(prepared, [0] * 3)
    mask = bytearray((VOCAB + 31) // 32 * 4)
    mask[77 // 8] |= 1 << 77 % 8
    handle.supply_masks({0: bytes(mask)})
    found = handle.result().rows
    assert found[0].token == 77
    assert found[2].top[0][0] == found[2].token
    assert found[2].logprob == pytest.approx(found[2].top[0][1])
    with torch.inference_mode():
        engine._cache._lines[:, 1, engine._pages._tables[1][0], :, 2] = torch.nan
    found = step(*(Row(slot, 1, 20) for slot in range(3)))
    assert [bool(row.error) for row in found] == [False, True, False]


def test_a_step_that_fails_is_given_its_masks_and_says_so(
    step: Stepper, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(kind: Kind) -> None:
        raise RuntimeError("no memory for a graph")

    engine = step.engine
    plan = StepPlan(0, (Row(0, 1, 0, text(0, 20), masked=True),), (), (admit(0),))
    prepared = engine.prepare_next(plan, None)
    with monkeypatch.context() as patch:
        patch.setattr(engine._steps, "run", fail)
        handle = engine.compute_current(prepared, [0])
    handle.supply_masks({0: bytes(4)})
    with pytest.raises(BackendError, match="no memory for a graph"):
        handle.result()
    assert not step(Row(1, 1, 0, text(1, 5)), admits=[admit(1)])[0].error


def test_a_row_of_no_numbers_leaves_the_others_their_experts(tmp_path: Path) -> None:
    mixed = {"expert_count": 6, "expert_used_count": 2}
    path = tiny(tmp_path / "model.gguf", "qwen3moe", layers=2, metadata=mixed)
    found = []
    for faulty in (False, True):
        engine = engine_of(path)
        step = Stepper(engine)
        rows = [Row(slot, 1, 0, text(slot, 8)) for slot in range(3)]
        step(*rows, admits=[admit(slot) for slot in range(3)])
        if faulty:
            with torch.inference_mode():
                engine._cache._lines[0, 1, engine._pages._tables[1][0], :, 2] = torch.nan
        errors = [bool(row.error) for row in step(*(Row(slot, 1, 8) for slot in range(3)))]
        assert errors == [False, faulty, False]
        found.append([step.logits(0).clone(), step.logits(2).clone()])
        engine.close()
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])


def test_a_card_that_failed_is_the_end_of_the_engine(
    step: Stepper, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is asked of it then gives the same error."""

    def fail(*_: object) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered\nmore words")

    with monkeypatch.context() as patch:
        patch.setattr(step.engine._steps, "run", fail)
        with pytest.raises(BackendError, match="PyTorch backend: CUDA error") as found:
            step(Row(0, 1, 0, text(0, 5)), admits=[admit(0)])
        assert not isinstance(found.value, EngineLost)
        patch.setattr(torch.cuda, "is_initialized", lambda: True)
        patch.setattr(torch.cuda, "synchronize", fail)
        with pytest.raises(EngineLost, match="^the card failed: .* encountered$"):
            step(Row(1, 1, 0, text(0, 5)), admits=[admit(1)])
        patch.setattr(step.engine._stager, "stage", fail)
        with pytest.raises(EngineLost):
            step(Row(2, 1, 0, text(0, 5)), admits=[admit(2)])


def test_too_much_is_refused_and_hurts_nobody(step: Stepper) -> None:
    with pytest.raises(BackendError, match="exceed the batch"):
        step(Row(0, 1, 0, (5,) * 4000), admits=[admit(0)])
    for row in (Row(0, 1, 190, (5,) * 5), Row(0, 1, 192)):
        with pytest.raises(BackendError, match="beyond the context"):
            step(row, admits=[admit(0)])
    assert not step(Row(0, 1, 0, text(0, 5)), admits=[admit(0)])[0].error


def test_plans_may_have_no_rows(step: Stepper) -> None:
    assert not step(kv=(Trim(0, 0),))
    assert not step(kv=(Trim(0, 0),))
    assert not step(Row(0, 1, 0, text(0, 5)), admits=[admit(0)])[0].error


@pytest.mark.parametrize(
    ("family", "slots"), [("llama", 1), ("llama", 4), ("llama", 20), ("qwen3moe", 20)]
)
def test_warming_launches_whatever_steps_launch(
    tmp_path: Path, family: str, slots: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kernel that is compiled and loaded while a graph is recorded would spoil the recording."""
    path = quantised(tmp_path / "model.gguf", family, WARMED[family], metadata=BENT.get(family))
    engine = engine_of(path, slots=slots)
    launched: set[object] = set()
    monkeypatch.setattr(
        gluon_on_numpy.Kernel, "__getitem__", lambda kernel, grid: partial(note, launched, kernel)
    )
    steps = engine._steps
    with torch.inference_mode():
        steps.warm()
        warmed = launched.copy()
        for kind in kinds_of(steps):
            steps.run(kind)
    engine.close()
    assert launched == warmed


def kinds_of(steps: Steps) -> set[Kind]:
    """Of all steps with up to 100 tokens of prompts."""
    slots = steps.sizes.slots
    found = {steps.kind(single, 0, 0, 100, penalised=True) for single in range(1, slots + 1)}
    for single, chunk in product(range(slots), range(1, 101, 9)):
        for ending in range(min(slots - single, chunk) + 1):
            found.add(steps.kind(single, chunk, ending, 0, penalised=True))
    return found


def note(launched: set[object], kernel: gluon_on_numpy.Kernel, *given: object, **_: object) -> None:
    """Of a launch what its compiled form depends on."""
    parameters = inspect.signature(kernel.fn).parameters.items()
    fixed = [
        value
        for (_, parameter), value in zip(parameters, given, strict=True)
        if "constexpr" in str(parameter.annotation)
    ]
    launched.add((kernel.fn.__name__, *fixed))


def test_steps_are_of_few_kinds() -> None:
    sizes = Sizes(slots=64, batch_tokens=2048)
    assert {sizes.row_bucket(n) for n in range(1, 65)} == {1, 8, 16, 32, 64}
    chunks = {sizes.token_bucket(n) for n in range(1, 2049)}
    assert chunks == {32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048}
    assert Sizes(slots=4, batch_tokens=512).row_bucket(3) == 8
    assert Sizes(slots=128, batch_tokens=512).row_bucket(65) == 128
