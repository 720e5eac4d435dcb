"""Lines over every kind of engine, and a script of what happens to them at which turn."""

from __future__ import annotations

import struct
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from lhama_testing_line import GREEDY, Line, Received
from pytorch_models import VOCAB, WIDTH, WORDS, tiny

from lhama.backends import devices
from lhama.backends.reference.engine import ReferenceEngine
from lhama.backends.reference.model import Behaviour
from lhama.daemon.runner.pipeline import Order
from lhama.plugins import gguf
from lhama.plugins.backend import Engine, LoadOptions, ModelFiles, Sampling, StepPlan
from lhama.plugins.manager import discover

JITTER = Behaviour(prepare_us=60, compute_us=120, result_us=60, jitter_seed=11)
"""The reference engine with random delays in all its halves."""

NAN_WORD = "▁the"
"""In a poisoned model this token's embedding is no number."""

ENGINES = ("reference-host", "reference-device", "llamacpp", "pytorch-host", "pytorch-device")
ON_CARD = "pytorch-cuda"


def order_of(kind: str) -> Order:
    """The overlapped order of an engine."""
    return "device" if kind.split("-")[-1] in ("device", "cuda") else "host"


def tiny_model(folder: Path, *, poisoned: bool = False) -> Path:
    """A model of random numbers that llama.cpp and PyTorch load in no time."""
    path = folder / f"tiny-{poisoned}.gguf"
    if path.exists():
        return path
    tiny(path, "llama", layers=2, extra={"output.weight": (WIDTH, VOCAB)})
    if poisoned:
        embeddings = gguf.read(path).tensors["token_embd.weight"]
        with path.open("r+b") as file:
            file.seek(embeddings.offset + WORDS.index(NAN_WORD) * WIDTH * 4)
            file.write(struct.pack("<f", float("nan")) * WIDTH)
    return path


def engine(kind: str, folder: Path, *, slots: int = 3, poisoned: bool = False) -> Engine:
    options = LoadOptions(slots=slots, context=256, batch=64, threads=2)
    name, _, feed = kind.partition("-")
    if name == "reference":
        return ReferenceEngine(replace(JITTER, token_feed=feed), options)
    path = tiny_model(folder, poisoned=poisoned)
    if kind == ON_CARD:
        import torch

        if not torch.cuda.is_available():
            pytest.skip("needs a CUDA device")
    if feed != "device":
        backend = discover().backends[name]
        return backend.load(ModelFiles("tiny", str(path)), options, lambda *_: None)
    from lhama.backends.pytorch.loader import load

    header = gguf.read(path, vocabulary=True)
    return load(header, options, devices.host(), lambda *_: None, token_feed="device")


class Script:
    """What happens at which turn of a line's loop: the same each time, unlike what happens at a
    moment. Actions run on the pipeline's thread, before the turn's plan."""

    def __init__(self, line: Line) -> None:
        self._line = line
        self._actions: defaultdict[int, list[Callable[[], None]]] = defaultdict(list)
        self._turn = 0
        plan = line.batcher.plan

        def turning(*given: Any) -> StepPlan | None:
            self._turn += 1
            for action in self._actions.pop(self._turn, []):
                action()
            return plan(*given)

        line.batcher.plan = turning  # type: ignore[method-assign]

    def at(self, turn: int, action: Callable[[], None]) -> None:
        self._actions[turn].append(action)

    def submit(self, turn: int, request_id: int, text: str, **wishes: Any) -> Received:
        """A request that comes at this turn."""
        request, received = self._line.request(request_id, text, **wishes)
        self.at(turn, lambda: self._line.batcher.submit(request))
        return received

    def cancel(self, turn: int, request_id: int) -> None:
        self.at(turn, lambda: self._line.batcher.cancel(request_id))

    def run(self, seconds: float = 60) -> None:
        """Until all actions are done and the line is idle."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self._line.cancel(-1)  # an idle line waits for something to come
            if not self._actions and self._line.batcher.idle:
                return
            time.sleep(0.002)
        raise AssertionError("the line hangs")


def trace(line: Line) -> list[tuple[int, tuple[tuple[int, int, int, int, bool], ...]]]:
    """Which rows were in which step: ``(slot, epoch, position, tokens, samples)`` of each."""
    return [
        (
            plan.step,
            tuple((r.slot, r.epoch, r.position, len(r.tokens), r.sample) for r in plan.rows),
        )
        for plan in line.plans
    ]


def draining(line: Line) -> None:
    """The lagged twin: everything is decided when the overlapped order decides it, and every step
    is waited for as soon as it is started."""
    compute = line.engine.compute_current

    def computing(prepared: Any, tokens: Any) -> Any:
        handle = compute(prepared, tokens)
        if any(row.masked for row in prepared.plan.rows):
            return handle
        return _Done(handle)

    line.engine.compute_current = computing  # type: ignore[method-assign]


class _Done:
    """A handle whose result is there."""

    def __init__(self, handle: Any) -> None:
        self._error: Exception | None = None
        try:
            self._result = handle.result()
        except Exception as error:
            self._error = error

    def result(self) -> Any:
        if self._error is not None:
            raise self._error
        return self._result


SAMPLINGS = (
    GREEDY,
    Sampling(temperature=0.9, seed=4),
    Sampling(temperature=1.2, top_k=0, top_p=0.95, seed=5),
    Sampling(temperature=0.0, presence_penalty=2.0, repeat_last_n=-1),
)
"""One that is greedy, one of few candidates, one of all, and one that looks back."""


def behaviour(order: Order, **wishes: Any) -> Behaviour:
    feed = "device" if order == "device" else "host"
    return Behaviour(**{**asdict(JITTER), "token_feed": feed, **wishes})
