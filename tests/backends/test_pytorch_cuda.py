"""The device feed on a real card: nothing waits but ``result``, and the tokens are right."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from pytorch_models import VOCAB, tiny

from lhama.backends.pytorch.backend import PyTorchBackend
from lhama.backends.pytorch.engine import PyTorchEngine
from lhama.plugins.backend import (
    Admit,
    LoadOptions,
    ModelFiles,
    PreparedStep,
    Row,
    Sampling,
    StepHandle,
    StepPlan,
)

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

CHOSEN = (
    Sampling(temperature=0.0),
    Sampling(seed=5, repeat_penalty=1.2, repeat_last_n=16),
    Sampling(seed=6, temperature=1.5, top_k=0, top_p=1.0, typical_p=0.9),
    Sampling(temperature=0.0, presence_penalty=1.0),
)
STEPS = 40


@pytest.fixture(params=["llama", "gemma3"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return tiny(tmp_path / f"{request.param}.gguf", request.param)


@pytest.fixture
def engine(path: Path) -> Iterator[PyTorchEngine]:
    engine = loaded(path, gpu_layers=-1)
    yield engine
    engine.close()


def loaded(path: Path, gpu_layers: int) -> PyTorchEngine:
    options = LoadOptions(slots=4, context=256, batch=256, gpu_layers=gpu_layers)
    files = ModelFiles("tiny", str(path))
    engine = PyTorchBackend().load(files, options, lambda share, what: None)
    assert isinstance(engine, PyTorchEngine)
    return engine


def prompt(slot: int) -> tuple[int, ...]:
    return (1, *[(slot * 31 + 17 * index) % (VOCAB - 3) + 3 for index in range(20)])


def plans() -> list[StepPlan]:
    admits = tuple(Admit(s, 1, sampling, prompt(s), 3) for s, sampling in enumerate(CHOSEN))
    first = StepPlan(0, tuple(Row(s, 1, 0, prompt(s)) for s in range(4)), (), admits)
    later = [StepPlan(n, tuple(Row(s, 1, 20 + n) for s in range(4))) for n in range(1, STEPS)]
    return [first, *later]


def run(engine: PyTorchEngine, *, overlapped: bool, strict: bool = False) -> list[list[int]]:
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


def test_the_feed_is_the_devices_own(engine: PyTorchEngine) -> None:
    assert engine.limits.token_feed == "device"
    assert engine.residency.device == "cuda:0"
    assert engine.residency.device_bytes > 0


def test_orders_give_the_same_tokens_and_nothing_waits(engine: PyTorchEngine) -> None:
    plain = run(engine, overlapped=False)
    assert len(plain) == STEPS
    assert run(engine, overlapped=True) == plain
    assert run(engine, overlapped=True, strict=True) == plain


def test_logits_are_near_the_processors(path: Path, engine: PyTorchEngine) -> None:
    """bfloat16 weights and activations: three digits."""
    host = loaded(path, gpu_layers=0)
    row = Row(0, 1, 0, tuple(itertools.islice(itertools.cycle(prompt(0)), 90)), sample=False)
    values = []
    for one, device in ((host, "cpu"), (engine, "cuda:0")):
        batch = one.prepare_next(StepPlan(0, (row,)), None).batch.to(torch.device(device))
        with torch.inference_mode():
            hidden = one._model.forward(batch, batch.ids, one._cache)
            values.append(one._model.logits(hidden).cpu())
    host.close()
    cosine = torch.cosine_similarity(values[0], values[1], dim=-1)
    assert cosine.min() > 0.98


def test_masks_and_faults_reach_their_rows(engine: PyTorchEngine) -> None:
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
        engine._cache.values[:, 1, 2] = torch.nan
    follow = tuple(Row(slot, 1, 21) for slot in range(3))
    handle = engine.compute_current(engine.prepare_next(StepPlan(1, follow), None), [0] * 3)
    errors = [bool(row.error) for row in handle.result().rows]
    assert errors == [False, True, False]
