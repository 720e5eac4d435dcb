"""A small stand-in for lhama's core: plans rows, feeds tokens back, in either order of the halves."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

from lhama.plugins.backend import (
    DROPPED,
    Admit,
    Engine,
    KvOp,
    PreparedStep,
    Row,
    RowResult,
    Sampling,
    StepHandle,
    StepPlan,
)

GREEDY = Sampling(temperature=0.0)


@dataclass
class Stream:
    """One request: a prompt in, tokens out."""

    slot: int
    prompt: Sequence[int]
    count: int
    sampling: Sampling = GREEDY
    logprobs: int = -1
    start: int = 0
    """Positions below are in the cache already."""
    history: tuple[int, ...] | None = None
    results: list[RowResult] = field(default_factory=list)
    scheduled: int = 0
    position: int = 0
    fed: int = 0

    @property
    def tokens(self) -> list[int]:
        return [result.token for result in self.results]


class Core:
    """Runs streams to their end. ``chunk`` is the most prompt tokens of a stream in one step."""

    def __init__(
        self, engine: Engine, *, overlapped: bool = True, chunk: int = 512, group: int = 0
    ) -> None:
        self.engine = engine
        self.group = group
        self.overlapped = overlapped
        self.chunk = chunk
        self.steps = itertools.count()
        self.batch_sizes: list[int] = []

    def run(self, *streams: Stream, kv: Sequence[KvOp] = ()) -> list[list[int]]:
        """Admit all at once, generate ``count`` tokens each; returns them by stream."""
        first = tuple(kv)
        admits = tuple(
            Admit(s.slot, 1, s.sampling, s.history or tuple(s.prompt), s.logprobs) for s in streams
        )
        for s in streams:
            s.fed = s.position = s.start
            s.scheduled, s.results = 0, []
        last: dict[int, RowResult] = {}
        flying: tuple[PreparedStep, StepHandle] | None = None
        while True:
            plan = StepPlan(next(self.steps), self.rows(streams), first, admits, self.group)
            if not plan.rows:
                break
            first, admits = (), ()
            previous = flying[0] if flying and self.overlapped else None
            if flying and not self.overlapped:
                self.take(flying[1], streams, last)
            prepared = self.engine.prepare_next(plan, previous)
            if flying and self.overlapped:
                self.take(flying[1], streams, last)
            tokens = [0 if row.tokens else last[row.slot].token for row in plan.rows]
            tokens = [
                DROPPED if not row.tokens and last[row.slot].error else token
                for row, token in zip(plan.rows, tokens, strict=True)
            ]
            self.batch_sizes.append(len(plan.rows))
            flying = (prepared, self.engine.compute_current(prepared, tokens))
        if flying:
            self.take(flying[1], streams, last)
        return [s.tokens for s in streams]

    def rows(self, streams: Sequence[Stream]) -> tuple[Row, ...]:
        rows: list[Row] = []
        for s in streams:
            if s.scheduled == s.count:
                continue
            if s.fed < len(s.prompt):
                piece = tuple(s.prompt[s.fed : s.fed + self.chunk])
                done = s.fed + len(piece) == len(s.prompt)
                rows.append(Row(s.slot, 1, s.position, piece, sample=done))
                s.fed += len(piece)
                s.position += len(piece)
                s.scheduled += done
            else:
                rows.append(Row(s.slot, 1, s.position))
                s.position += 1
                s.scheduled += 1
        return tuple(sorted(rows, key=lambda row: row.slot))

    def take(
        self, handle: StepHandle, streams: Sequence[Stream], last: dict[int, RowResult]
    ) -> None:
        for row in handle.result().rows:
            last[row.slot] = row
            next(s for s in streams if s.slot == row.slot).results.append(row)
