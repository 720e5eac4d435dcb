"""The engine of NVIDIA cards: weights stay quantised, steps are graphs, tokens stay on the card."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

from lhama.backends.pytorch.cuda import draws
from lhama.backends.pytorch.cuda.attention import QUERIES, splits_for
from lhama.backends.pytorch.cuda.cache import Cache
from lhama.backends.pytorch.cuda.handle import NOTHING, Handle
from lhama.backends.pytorch.cuda.pages import Pages
from lhama.backends.pytorch.cuda.rows import RING
from lhama.backends.pytorch.cuda.several import Tokens
from lhama.backends.pytorch.cuda.steps import Steps, bucket
from lhama.backends.pytorch.engine import unpack
from lhama.backends.pytorch.sampler import Sampler, Turn
from lhama.backends.pytorch.tokenizer import GGUFTokenizer
from lhama.plugins.backend import (
    DROPPED,
    BackendError,
    EmbedHandle,
    Limits,
    PreparedStep,
    Residency,
    Row,
    StepPlan,
)

History = tuple[torch.Tensor, torch.Tensor]


@dataclass(slots=True)
class Prepared:
    """A staged step. ``rows`` are the plan's in the card's order: those with one token, then
    prompts; the sampling ones among them are ``turns``."""

    plan: StepPlan
    ring: int
    rows: list[Row]
    single: int
    turns: list[Turn]
    penalised: bool
    general: list[int]
    """Turns that are not drawn by the kernels."""
    longest: int
    """Positions that the longest of the single rows looks back on."""
    histories: list[History]
    staged: torch.Tensor | None
    """int32: what a step with prompts needs besides, see ``_stage_prompts``."""


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
        self._nowhere = sampler.penalties.recent.numel() - 1
        self._ring = 0
        self._last: Handle | None = None

    # --------------------------------------------------------------------------- the two halves

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
            self._pages.reserve(row.slot, row.position, row.position + max(len(row.tokens), 1))
        single = [row for row in plan.rows if row.sample and len(row.tokens) <= 1]
        rows = single + [row for row in plan.rows if not (row.sample and len(row.tokens) <= 1)]
        turns = self._sampler.turns(rows)
        self._ring = (self._ring + 1) % RING
        penalised = self._stage_rows(rows, turns)
        general = [
            index
            for index, turn in enumerate(turns)
            if not draws.is_common(turn, self.limits.context)
        ]
        staged = None
        if len(single) < len(rows):
            staged = self._stage_prompts(rows, len(single))
        return Prepared(
            plan,
            self._ring,
            rows,
            len(single),
            turns,
            penalised,
            general,
            max((row.position for row in single), default=0),
            histories,
            staged,
        )

    def compute_current(self, prepared: PreparedStep, tokens: Sequence[int]) -> Handle:
        assert isinstance(prepared, Prepared)
        dropped = {
            row.slot
            for row, token in zip(prepared.plan.rows, tokens, strict=True)
            if token == DROPPED
        }
        if dropped:
            self._drop(prepared, dropped)
        alive = {
            (turn.row.slot, turn.row.epoch): place
            for place, turn in enumerate(prepared.turns)
            if turn.row.slot not in dropped
        }
        sampled = [r for r in prepared.plan.rows if r.sample and r.slot not in dropped]
        with self._context():
            handle = Handle(
                sampled,
                [alive[row.slot, row.epoch] for row in sampled],
                self._steps.results[prepared.ring],
                self._device,
                self._last,
            )
            general = [i for i in prepared.general if prepared.turns[i].row.slot not in dropped]
            self._attempt(handle, lambda: self._forward(prepared))
            if any(prepared.turns[i].row.masked for i in general):
                handle.when_masked = lambda masks: self._attempt(
                    handle, lambda: self._draw(handle, prepared, general, masks)
                )
            else:
                self._attempt(handle, lambda: self._draw(handle, prepared, general, {}))
        self._last = handle
        return handle

    def embed(self, inputs: Sequence[Sequence[int]]) -> EmbedHandle:
        raise BackendError("this model does not support embeddings")

    def close(self) -> None:
        if self._on_cuda:
            torch.cuda.synchronize(self._device)
        del self._steps, self._cache, self._sampler
        self._last = None
        if self._on_cuda:
            torch.cuda.empty_cache()

    # --------------------------------------------------------------------------- on the host, ahead

    def _check(self, plan: StepPlan) -> None:
        count = sum(max(len(row.tokens), 1) for row in plan.rows)
        if count > self.limits.batch_tokens:
            raise BackendError(f"{count} tokens exceed the batch's {self.limits.batch_tokens}")
        if any(row.position + len(row.tokens) > self.limits.context for row in plan.rows):
            raise BackendError(f"a row goes beyond the context of {self.limits.context}")

    def _stage_rows(self, rows: Sequence[Row], turns: Sequence[Turn]) -> bool:
        """Fields of the rows that sample; whether any is penalised."""
        into = self._steps.rows.staging(self._ring)
        count = len(turns)
        into["slots"][:] = self._cache.nobody
        into["slots"][:count] = [turn.row.slot for turn in turns]
        into["positions"][:] = 0
        into["positions"][:count] = [turn.row.position for turn in turns]
        into["tokens"][:] = 0
        into["tokens"][:count] = [(*turn.row.tokens, -1)[0] for turn in turns]
        into["places"][:] = self._nowhere
        into["temperature"][:] = 0
        into["top_k"][:] = 1
        into["sizes"][:] = 0
        into["ring"][0] = self._ring
        return draws.stage(turns, into, self.limits.context, self._nowhere)

    def _stage_prompts(self, rows: Sequence[Row], single: int) -> torch.Tensor:
        """Tokens' ids, slots and positions; the tokens sampled after; blocks of prompts."""
        ids: list[int] = []
        slots: list[int] = []
        positions: list[int] = []
        outputs: list[int] = []
        blocks: list[tuple[int, int, int, int]] = []
        for index, row in enumerate(rows):
            count = max(len(row.tokens), 1)
            if index >= single:
                blocks += [
                    (row.slot, len(ids) + at - single, row.position + at, min(QUERIES, count - at))
                    for at in range(0, count, QUERIES)
                ]
            ids += row.tokens or (-1,)
            slots += [row.slot] * count
            positions += range(row.position, row.position + count)
            if row.sample:
                outputs.append(len(ids) - 1)
        words = np.array(
            [
                len(ids),
                len(outputs),
                *ids,
                *slots,
                *positions,
                *outputs,
                *(number for field in zip(*blocks, strict=True) for number in field),
            ],
            np.int32,
        )
        staged = torch.from_numpy(words)
        return staged.pin_memory() if self._on_cuda else staged

    def _drop(self, prepared: Prepared, dropped: set[int]) -> None:
        """Sequences that ended since the step was prepared: their rows become nobody's."""
        into = self._steps.rows.staging(prepared.ring)
        for index, turn in enumerate(prepared.turns):
            if turn.row.slot in dropped:
                into["slots"][index] = self._cache.nobody
                into["positions"][index] = into["sizes"][index] = 0
                into["places"][index] = self._nowhere
        if prepared.staged is not None:
            words = prepared.staged.numpy()
            slots = words[2 + words[0] : 2 + 2 * words[0]]
            slots[np.isin(slots, list(dropped))] = self._cache.nobody

    # ----------------------------------------------------------------------------------- enqueued

    def _forward(self, prepared: Prepared) -> None:
        """All of a step, but for rows drawn the general way."""
        steps = self._steps
        self._cache.apply(self._pages.take_changes(), self._on_cuda)
        for history in prepared.histories:
            self._sampler.penalties.fill(*history)
        steps.results[prepared.ring] = NOTHING
        steps.rows.send(prepared.ring)
        splits = splits_for(prepared.longest)
        if prepared.staged is None:
            if prepared.rows:
                count = bucket(prepared.single, steps.most)
                steps.decode(count, splits, penalised=prepared.penalised)
            return
        count, outputs = prepared.staged[:2].tolist()
        words = prepared.staged.to(self._device, non_blocking=True)
        ids, slots, positions = words[2 : 2 + 3 * count].view(3, count).unbind(0)
        rest = words[2 + 3 * count :]
        blocks = rest[outputs:].view(4, -1)
        tokens = Tokens(ids, slots, positions, prepared.single, splits, blocks)
        steps.mixed(tokens, rest[:outputs], penalised=prepared.penalised)

    def _draw(
        self,
        handle: Handle,
        prepared: Prepared,
        general: Sequence[int],
        masks: Mapping[int, bytes],
    ) -> None:
        """Rows the kernels cannot draw; then the step is complete."""
        if not general:
            handle.finish()
            return
        steps = self._steps
        request = self._sampler.stage([prepared.turns[i] for i in general]).to(self._device)
        allowed = {
            index: self._upload(unpack(masks[row.slot], self.limits.vocab))
            for index, row in enumerate(request.rows)
            if row.masked and row.slot in masks  # a row without one has ended meanwhile
        }
        places = self._upload(torch.tensor(general, dtype=torch.int64))
        drawn = self._sampler.draw(steps.logits[places], request, allowed)
        steps.last_token[request.slots] = drawn.tokens.int()
        handle.finish(request, drawn)

    def _attempt(self, handle: Handle, job: Callable[[], None]) -> None:
        if handle.failed:
            return
        try:
            with self._context():
                job()
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
