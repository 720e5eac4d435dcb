"""Writes a plan's rows into the staging memory, in the card's order: single tokens, then prompts.

Steps differ little from one to the next. An **image** of the rows' fields is kept; when the same
sequences go on by a token each, three of its fields change.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from lhama.backends.pytorch.cuda import draws
from lhama.backends.pytorch.cuda.attention import QUERIES
from lhama.backends.pytorch.cuda.rows import BLOCK_FIELDS, Staging
from lhama.backends.pytorch.cuda.steps import Kind, Steps
from lhama.backends.pytorch.sampler import Sampler, Turn
from lhama.plugins.backend import Row


@dataclass(frozen=True, slots=True)
class Staged:
    """A step in staging memory."""

    ring: int
    kind: Kind
    rows: Sequence[Row]
    """Those that sample, in the card's order."""
    places: Sequence[int]
    """Where among the card's rows each of them is drawn."""
    general: Sequence[tuple[int, Turn]]
    """Rows that the kernels do not draw, with their places."""


class Stager:
    """Fills the staging memory of one engine."""

    def __init__(self, steps: Steps, sampler: Sampler, context: int, nobody: int) -> None:
        """``nobody``: the slot of rows that only fill up."""
        self._steps = steps
        self._sampler = sampler
        self._context = context
        self._nobody = nobody
        self._nowhere = sampler.penalties.recent.numel() - 1
        self._image = steps.rows.image()
        self._last: Staged | None = None
        """Whose rows are in the image, if they can go on in it."""

    def stage(self, rows: Sequence[Row], ring: int) -> Staged:
        """Called once for each step: its samples count as accepted from now on."""
        staged = self._going_on(rows, ring) or self._anew(rows, ring)
        self._image["ring"][0] = ring
        self._steps.rows.staging(ring).take_rows(self._image)
        return staged

    def _going_on(self, rows: Sequence[Row], ring: int) -> Staged | None:
        """The last step's rows, each a token further."""
        last = self._last
        if last is None or not rows or len(rows) != len(last.rows):
            return None
        for row, before in zip(rows, last.rows, strict=True):
            if row.slot != before.slot or row.epoch != before.epoch or len(row.tokens) > 1:
                return None
            if not row.sample or row.masked:
                return None
        self._place(rows, last.places, [self._sampler.accept(row) for row in rows])
        longest = max(row.position for row in rows)
        kind = self._steps.kind(len(rows), 0, 0, longest, penalised=False)
        self._last = Staged(ring, kind, rows, last.places, ())
        return self._last

    def _anew(self, rows: Sequence[Row], ring: int) -> Staged:
        single = [row for row in rows if row.sample and len(row.tokens) <= 1]
        prompts = [row for row in rows if not (row.sample and len(row.tokens) <= 1)]
        turns = self._sampler.turns((*single, *prompts))
        chunk = sum(len(row.tokens) or 1 for row in prompts)
        padded = self._steps.sizes.single_bucket(len(single), chunk)
        places = [*range(len(single)), *range(padded, padded + len(turns) - len(single))]
        common = [draws.is_common(turn, self._context) for turn in turns]
        self._clear()
        sampling = [turn.row for turn in turns]
        self._image["slots"][places] = [row.slot for row in sampling]
        self._place(sampling, places, [turn.accepted for turn in turns], common)
        penalised = draws.stage(turns, common, places, self._image, self._context)
        if prompts:
            self._stage_tokens(self._steps.rows.staging(ring), single, prompts, padded)
        longest = max((row.position for row in single), default=0)
        ending = len(turns) - len(single)
        kind = self._steps.kind(len(single), chunk, ending, longest, penalised=penalised)
        general = [
            (place, turn)
            for place, turn, fast in zip(places, turns, common, strict=True)
            if not fast
        ]
        staged = Staged(ring, kind, sampling, places, general)
        self._last = staged if not (prompts or penalised or general) else None
        return staged

    def _clear(self) -> None:
        image = self._image
        image["slots"][:] = self._nobody
        image["places"][:] = self._nowhere
        image["top_k"][:] = 1
        for name in ("positions", "tokens", "temperature", "sizes"):
            image[name][:] = 0

    def _place(
        self,
        rows: Sequence[Row],
        places: Sequence[int],
        accepted: Sequence[int],
        common: Sequence[bool] = (),
    ) -> None:
        """What changes from step to step: positions, tokens, where they go, and the numbers drawn."""
        image, context = self._image, self._context
        at: Sequence[int] | slice = places
        if places and places[-1] == len(places) - 1:
            at = slice(len(places))
        image["positions"][at] = [row.position for row in rows]
        image["tokens"][at] = [row.tokens[0] if row.tokens else -1 for row in rows]
        image["number"][at] = draws.numbers(
            [self._sampler.seed(row) for row in rows],
            [row.position + (len(row.tokens) or 1) for row in rows],
        )
        cells = [
            row.slot * context + count % context for row, count in zip(rows, accepted, strict=True)
        ]
        if not all(common):
            cells = [c if fast else self._nowhere for c, fast in zip(cells, common, strict=True)]
        image["places"][at] = cells

    def _stage_tokens(
        self, into: Staging, single: Sequence[Row], prompts: Sequence[Row], padded: int
    ) -> None:
        """All tokens of a step with prompts; the singles' number is ``padded``."""
        into["token_slots"][:] = self._nobody
        for name in ("token_positions", "ids", "block_counts", "outputs"):
            into[name][:] = 0
        count = len(single)
        into["ids"][:count] = self._image["tokens"][:count]
        into["token_slots"][:count] = self._image["slots"][:count]
        into["token_positions"][:count] = self._image["positions"][:count]
        into["outputs"][:count] = range(count)
        at, block, output = padded, 0, padded
        for row in prompts:
            tokens = row.tokens or (-1,)
            end = at + len(tokens)
            into["ids"][at:end] = tokens
            into["token_slots"][at:end] = row.slot
            into["token_positions"][at:end] = range(row.position, row.position + len(tokens))
            for first in range(0, len(tokens), QUERIES):
                size = min(QUERIES, len(tokens) - first)
                numbers = (row.slot, at - padded + first, row.position + first, size)
                for name, number in zip(BLOCK_FIELDS, numbers, strict=True):
                    into[name][block] = number
                block += 1
            if row.sample:
                into["outputs"][output] = end - 1
                output += 1
            at = end

    def drop(self, staged: Staged, dropped: Collection[int]) -> None:
        """Sequences that ended since the step was staged: their rows become nobody's."""
        into = self._steps.rows.staging(staged.ring)
        for row, place in zip(staged.rows, staged.places, strict=True):
            if row.slot in dropped:
                into["slots"][place] = self._nobody
                into["positions"][place] = into["sizes"][place] = 0
                into["places"][place] = self._nowhere
        if staged.kind.chunk:
            slots = into["token_slots"]
            slots[np.isin(slots, list(dropped))] = self._nobody
