"""The engine of NVIDIA cards: weights stay quantised, steps are graphs, tokens stay on the card."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from lhama.backends.pytorch.cuda.cache import Cache
from lhama.backends.pytorch.cuda.handle import NOTHING, Handle, Mark
from lhama.backends.pytorch.cuda.pages import Pages
from lhama.backends.pytorch.cuda.rows import RING
from lhama.backends.pytorch.cuda.staging import Staged, Stager
from lhama.backends.pytorch.cuda.steps import Steps
from lhama.backends.pytorch.engine import unpack
from lhama.backends.pytorch.handle import told
from lhama.backends.pytorch.sampler import Sampler, Turn
from lhama.backends.pytorch.tokenizer import GGUFTokenizer
from lhama.plugins.backend import (
    DROPPED,
    BackendError,
    EmbedHandle,
    Limits,
    PreparedStep,
    Residency,
    StepPlan,
)

History = tuple[torch.Tensor, torch.Tensor]
General = Sequence[tuple[int, Turn]]
"""Rows that the kernels do not draw, with their places."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A staged step."""

    plan: StepPlan
    staged: Staged
    histories: list[History]
    """What new sequences' penalties look back on."""


class CudaEngine:
    """``lhama.plugins.backend.Engine`` on one card. Everything is enqueued on one stream."""

    def __init__(
        self,
        steps: Steps,
        cache: Cache,
        pages: Pages,
        sampler: Sampler,
        tokenizer: GGUFTokenizer,
        limits: Limits,
        residency: Residency,
        device: torch.device,
    ) -> None:
        self.limits = limits
        self.residency = residency
        self.tokenizer = tokenizer
        self._steps = steps
        self._cache = cache
        self._pages = pages
        self._sampler = sampler
        self._device = device
        self._on_cuda = device.type == "cuda"
        self._results = steps.results.numpy()
        self._marks = [(Mark(device), Mark(device)) for _ in range(RING)]
        self._stager = Stager(steps, sampler, limits.context, cache.nobody)
        self._ring = 0
        self._last: Handle | None = None

    # --------------------------------------------------------------------------- the two halves

    @told()
    def prepare_next(self, plan: StepPlan, previous: PreparedStep | None) -> Prepared:
        self._check(plan)
        for operation in plan.kv:
            self._pages.apply(operation)
        histories: list[History] = []
        for admit in plan.admits:
            self._sampler.admit(admit)
            history = self._sampler.penalties.history(admit)
            if history is not None:
                histories.append(history)
        for row in plan.rows:
            self._pages.reserve(row.slot, row.position, row.position + row.size)
        self._ring = (self._ring + 1) % RING
        return Prepared(plan, self._stager.stage(plan.rows, self._ring), histories)

    @told()
    def compute_current(self, prepared: PreparedStep, tokens: Sequence[int]) -> Handle:
        assert isinstance(prepared, Prepared)
        dropped = {
            row.slot
            for row, token in zip(prepared.plan.rows, tokens, strict=True)
            if token == DROPPED
        }
        staged, rows = prepared.staged, prepared.plan.rows
        general = staged.general
        if dropped:
            self._stager.drop(staged, dropped)
            rows = tuple(row for row in rows if row.slot not in dropped)
            general = [(place, turn) for place, turn in general if turn.row.slot not in dropped]
        places = {row.slot: place for row, place in zip(staged.rows, staged.places, strict=True)}
        sampled = [row for row in rows if row.sample]
        with self._context():
            handle = Handle(
                sampled,
                [places[row.slot] for row in sampled],
                self._results[staged.ring],
                self._marks[staged.ring],
                self._last,
            )
            self._last = handle
            masked = any(row.masked for row in prepared.plan.rows)
            if masked:  # they will come, whatever becomes of the step
                handle.when_masked = lambda masks: self._draw_masked(handle, general, masks)
            try:
                self._forward(prepared)
                if not masked:
                    self._draw(handle, general, {})
            except Exception as error:
                handle.fail(error)
        return handle

    def embed(self, inputs: Sequence[Sequence[int]]) -> EmbedHandle:
        raise BackendError("this model does not support embeddings")

    def close(self) -> None:
        if self._on_cuda:
            torch.cuda.synchronize(self._device)
        del self._steps, self._cache, self._sampler, self._stager, self._results
        self._last = None
        if self._on_cuda:
            torch.cuda.empty_cache()

    # --------------------------------------------------------------------------- on the host, ahead

    def _check(self, plan: StepPlan) -> None:
        count = sum(row.size for row in plan.rows)
        if count > self.limits.batch_tokens:
            raise BackendError(f"{count} tokens exceed the batch's {self.limits.batch_tokens}")
        if any(row.position + row.size > self.limits.context for row in plan.rows):
            raise BackendError(f"a row goes beyond the context of {self.limits.context}")

    # ----------------------------------------------------------------------------------- enqueued

    def _forward(self, prepared: Prepared) -> None:
        """All of a step, but for rows drawn the general way."""
        steps, staged = self._steps, prepared.staged
        self._cache.apply(self._pages.take_changes(), self._on_cuda)
        for history in prepared.histories:
            self._sampler.penalties.fill(*history)
        if prepared.plan.rows:
            self._results[staged.ring].fill(NOTHING)
            steps.rows.send(staged.ring, prompts=staged.kind.chunk > 0)
            steps.run(staged.kind)

    def _draw(self, handle: Handle, general: General, masks: Mapping[int, bytes]) -> None:
        """Rows the kernels cannot draw; then the step is complete."""
        if not general:
            handle.finish()
            return
        steps = self._steps
        request = self._sampler.stage([turn for _, turn in general]).to(self._device)
        allowed = {
            index: self._upload(unpack(masks[row.slot], self.limits.vocab))
            for index, row in enumerate(request.rows)
            if row.masked and row.slot in masks  # a row without one has ended meanwhile
        }
        places = self._upload(torch.tensor([place for place, _ in general], dtype=torch.int64))
        drawn = self._sampler.draw(steps.logits[places], request, allowed)
        steps.last_token[request.slots] = drawn.tokens.int()
        handle.finish(request, drawn)

    def _draw_masked(self, handle: Handle, general: General, masks: Mapping[int, bytes]) -> None:
        """The same when the masks have come, on whatever thread brings them."""
        if handle.failed:
            return
        try:
            with self._context():
                self._draw(handle, general, masks)
        except Exception as error:
            handle.fail(error)

    @contextmanager
    def _context(self) -> Iterator[None]:
        with torch.inference_mode():
            if not self._on_cuda:
                yield
                return
            with torch.cuda.device(self._device):
                yield

    def _upload(self, tensor: torch.Tensor) -> torch.Tensor:
        staged = tensor.pin_memory() if self._on_cuda else tensor
        return staged.to(self._device, non_blocking=True)
