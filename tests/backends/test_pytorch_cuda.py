"""The device feed on a real card: nothing waits but ``result``, and the tokens are right."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from pytorch_models import VOCAB, tiny

if not torch.cuda.is_available():
    pytest.skip("needs a CUDA device", allow_module_level=True)

from lhama.backends import devices
from lhama.backends.pytorch.backend import PyTorchBackend
from lhama.backends.pytorch.cuda.engine import CudaEngine
from lhama.backends.pytorch.engine import PyTorchEngine
from lhama.backends.pytorch.loader import load
from lhama.plugins.backend import (
    Admit,
    LoadOptions,
    ModelFiles,
    PreparedStep,
    Row,
    Sampling,
    StepHandle,
    StepPlan,
    Trim,
)
from lhama.plugins.gguf import read

CHOSEN = (
    Sampling(temperature=0.0),
    Sampling(seed=5, repeat_penalty=1.2, repeat_last_n=16),
    Sampling(seed=6, temperature=1.5, top_k=0, top_p=1.0, typical_p=0.9),
    Sampling(temperature=0.0, presence_penalty=1.0),
)
STEPS = 40


@pytest.fixture(params=["llama", "gemma3", "phi3", "qwen3moe"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    mixed = {"expert_count": 6, "expert_used_count": 2} if request.param == "qwen3moe" else {}
    return tiny(tmp_path / f"{request.param}.gguf", request.param, metadata=mixed)


OPTIONS = LoadOptions(slots=4, context=256, batch=256)


@pytest.fixture(params=["kernels", "plain"])
def engine(request: pytest.FixtureRequest, path: Path) -> Iterator[CudaEngine | PyTorchEngine]:
    """The cards' own engine, and plain PyTorch, which takes what the first has no kernels for."""
    if request.param == "kernels":
        engine = PyTorchBackend().load(ModelFiles("tiny", str(path)), OPTIONS, lambda *_: None)
        assert isinstance(engine, CudaEngine)
    elif path.stem == "qwen3moe":
        pytest.skip("plain PyTorch asks the card which experts are used")
    else:
        header = read(path, vocabulary=True)
        card = devices.nvidia()[0]
        engine = load(header, OPTIONS, card, lambda *_: None, token_feed="device")
        assert isinstance(engine, PyTorchEngine)
    yield engine
    engine.close()


@pytest.fixture
def kernels(path: Path) -> Iterator[CudaEngine]:
    engine = PyTorchBackend().load(ModelFiles("tiny", str(path)), OPTIONS, lambda *_: None)
    assert isinstance(engine, CudaEngine)
    yield engine
    engine.close()


def plain_on_the_processor(path: Path) -> PyTorchEngine:
    header = read(path, vocabulary=True)
    engine = load(header, OPTIONS, devices.host(), lambda *_: None)
    assert isinstance(engine, PyTorchEngine)
    return engine


def prompt(slot: int) -> tuple[int, ...]:
    return (1, *[(slot * 31 + 17 * index) % (VOCAB - 3) + 3 for index in range(20)])


def plans() -> list[StepPlan]:
    admits = tuple(Admit(s, 1, sampling, prompt(s), 3) for s, sampling in enumerate(CHOSEN))
    first = StepPlan(0, tuple(Row(s, 1, 0, prompt(s)) for s in range(4)), (), admits)
    later = [StepPlan(n, tuple(Row(s, 1, 20 + n) for s in range(4))) for n in range(1, STEPS)]
    return [first, *later]


def run(
    engine: CudaEngine | PyTorchEngine, *, overlapped: bool, strict: bool = False
) -> list[list[int]]:
    """All steps; ``strict`` makes every wait on the device an error but those of ``result``."""
    found: list[list[int]] = []
    flying: tuple[PreparedStep, StepHandle] | None = None
    for plan in plans():
        if flying and not overlapped:
            found.append([row.token for row in flying[1].result().rows])
        torch.cuda.set_sync_debug_mode("error" if strict else "default")
        prepared = engine.prepare_next(plan, flying[0] if flying else None)
        handle = engine.compute_current(prepared, [0] * len(plan.rows))
        torch.cuda.set_sync_debug_mode("default")
        if flying and overlapped:
            found.append([row.token for row in flying[1].result().rows])
        flying = (prepared, handle)
    assert flying
    found.append([row.token for row in flying[1].result().rows])
    return found


def test_the_feed_is_the_devices_own(engine: CudaEngine | PyTorchEngine) -> None:
    assert engine.limits.token_feed == "device"
    assert engine.residency.device == "cuda:0"
    assert engine.residency.device_bytes > 0


def test_orders_give_the_same_tokens_and_nothing_waits(
    engine: CudaEngine | PyTorchEngine,
) -> None:
    plain = run(engine, overlapped=False)
    assert len(plain) == STEPS
    assert run(engine, overlapped=True) == plain
    assert run(engine, overlapped=True, strict=True) == plain


def test_logits_are_near_the_processors(path: Path, kernels: CudaEngine) -> None:
    """float32 weights; activations in float16, keys and values too. That may send a token to
    another expert that is all but as good."""
    host = plain_on_the_processor(path)
    tokens = tuple(itertools.islice(itertools.cycle(prompt(0)), 90))
    row = Row(0, 1, 0, tokens, sample=False)
    batch = host.prepare_next(StepPlan(0, (row,)), None).batch
    with torch.inference_mode():
        wanted = host._model.logits(host._model.forward(batch, batch.ids, host._cache))
    host.close()
    admits = (Admit(0, 1, Sampling(temperature=0.0), ()),)
    errors = []
    for position, plan in (
        (49, StepPlan(0, (Row(0, 1, 0, tokens[:50]),), (), admits)),
        *((at, StepPlan(at, (Row(0, 1, at, tokens[at : at + 1]),))) for at in range(50, 90)),
    ):
        kernels.compute_current(kernels.prepare_next(plan, None), [0]).result()
        found = kernels._steps.logits[0].cpu()
        errors.append(((found - wanted[position]).norm() / wanted[position].norm()).item())
    assert statistics.median(errors) < 0.01
    assert path.stem == "qwen3moe" or max(errors) < 0.01


def test_masks_and_faults_reach_their_rows(engine: CudaEngine | PyTorchEngine) -> None:
    rows = tuple(Row(slot, 1, 0, prompt(slot), masked=slot == 0) for slot in range(3))
    admits = tuple(Admit(slot, 1, Sampling(temperature=0.0), ()) for slot in range(3))
    handle = engine.compute_current(
        engine.prepare_next(StepPlan(0, rows, (), admits), None), [0] * 3
    )
    mask = bytearray((VOCAB + 31) // 32 * 4)
    mask[77 // 8] |= 1 << 77 % 8
    handle.supply_masks({0: bytes(mask)})
    assert handle.result().rows[0].token == 77
    with torch.inference_mode():
        if isinstance(engine, CudaEngine):
            engine._cache._lines[:, 1, engine._pages._tables[1][0], :, 2] = torch.nan
        else:
            engine._cache.values[:, 1, 2] = torch.nan
    follow = tuple(Row(slot, 1, 21) for slot in range(3))
    handle = engine.compute_current(engine.prepare_next(StepPlan(1, follow), None), [0] * 3)
    errors = [bool(row.error) for row in handle.result().rows]
    assert errors == [False, True, False]


def test_a_row_is_the_same_in_every_graph_of_several_rows(path: Path) -> None:
    """With one other row or eleven: bit for bit the same logits."""
    options = replace(OPTIONS, slots=16)
    kernels = PyTorchBackend().load(ModelFiles("tiny", str(path)), options, lambda *_: None)
    assert isinstance(kernels, CudaEngine)
    found = []
    for slots in (range(2), range(12)):
        for slot in slots:
            admits = (Admit(slot, 1, Sampling(temperature=0.0), ()),)
            compute(
                kernels, StepPlan(0, (Row(slot, 1, 0, prompt(slot)),), (Trim(slot, 0),), admits)
            )
        logits = []
        for at in range(21, 41):
            compute(kernels, StepPlan(at, tuple(Row(slot, 1, at, (at,)) for slot in slots)))
            logits.append(kernels._steps.logits[0].clone())
        found.append(torch.stack(logits))
    kernels.close()
    assert torch.equal(found[0], found[1])


def compute(engine: CudaEngine, plan: StepPlan) -> None:
    prepared = engine.prepare_next(plan, None)
    engine.compute_current(prepared, [0] * len(plan.rows)).result()
