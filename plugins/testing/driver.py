"""A small stand-in for lhama's core: plans rows, feeds tokens back, in any order of the halves."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, TypeAlias

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
    StepResult,
    Trim,
)

GREEDY = Sampling(temperature=0)

Order: TypeAlias = Literal["off", "host", "device"]


@dataclass
class Stream:
    """One sequence: a prompt in, ``count`` tokens out."""

    slot: int
    prompt: Sequence[int]
    count: int
    sampling: Sampling = GREEDY
    logprobs: int = -1
    start: int = 0
    """Positions below are in the cache already."""
    epoch: int = 0
    """Given when it is admitted."""
    position: int = 0
    scheduled: int = 0
    results: list[RowResult] = field(default_factory=list)

    @property
    def tokens(self) -> list[int]:
        return [result.token for result in self.results]


class Flight(NamedTuple):
    """A step that was started."""

    prepared: PreparedStep
    handle: StepHandle


class Driver:
    """Runs steps of one engine. Epochs go up by one with each sequence of a slot, as the core's."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._steps = itertools.count(1)
        self._epochs = itertools.count(1)

    # -------------------------------------------------------------------------------- whole streams

    def generate(
        self,
        *streams: Stream,
        order: Order | None = None,
        chunk: int = 0,
        kv: Sequence[KvOp] | None = None,
    ) -> list[list[int]]:
        """Admit all streams at once and run them to their end; returns the tokens of each.

        All slots are of one group. ``order``: the engine's own if not given. ``chunk``: the most
        prompt tokens of a stream in one step. ``kv`` replaces the trims that empty the slots.
        """
        order = order or self.engine.limits.token_feed
        first = [Trim(stream.slot, stream.start) for stream in streams] if kv is None else kv
        admits = [self.admit(stream) for stream in streams]
        flight: Flight | None = None
        while True:
            rows = self._rows(streams, chunk, known=order == "off")
            if not rows and flight is None:
                return [stream.tokens for stream in streams]
            following: Flight | None = None
            if rows:
                plan = self.plan(rows, first, admits)
                first, admits = [], []
                prepared = self.engine.prepare_next(plan, flight.prepared if flight else None)
                if order == "device":
                    following = self.start(prepared)
            if flight is not None:
                take(flight.handle.result(), streams)
            if rows and following is None:
                following = self.start(prepared, self._known(streams, rows))
            if following is not None and order == "off":
                take(following.handle.result(), streams)
                following = None
            flight = following

    def admit(self, stream: Stream) -> Admit:
        """Begin a stream anew, in a new epoch of its slot."""
        stream.epoch = next(self._epochs)
        stream.position, stream.scheduled, stream.results = stream.start, 0, []
        history = tuple(stream.prompt)
        return Admit(stream.slot, stream.epoch, stream.sampling, history, stream.logprobs)

    def _rows(self, streams: Iterable[Stream], chunk: int, *, known: bool) -> list[Row]:
        """What each stream wants of the next step, counting on every token in flight to arrive."""
        streams = [stream for stream in streams if stream.scheduled < stream.count]
        room = self.engine.limits.batch_tokens // max(len(streams), 1)
        return sorted(
            (next_row(stream, min(chunk or room, room), known=known) for stream in streams),
            key=lambda row: row.slot,
        )

    def _known(self, streams: Sequence[Stream], rows: Sequence[Row]) -> list[int]:
        last = {stream.slot: stream.results[-1] for stream in streams if stream.results}
        tokens = []
        for row in rows:
            ended = not row.tokens and last[row.slot].error
            fed = 0 if row.tokens else last[row.slot].token
            tokens.append(DROPPED if ended else fed)
        return tokens

    # ---------------------------------------------------------------------------------- single steps

    def plan(
        self,
        rows: Sequence[Row],
        kv: Sequence[KvOp] = (),
        admits: Sequence[Admit] = (),
    ) -> StepPlan:
        """A step of rows in slots of one group."""
        limits = self.engine.limits
        slot = rows[0].slot if rows else 0
        group = slot * limits.groups // limits.slots
        return StepPlan(next(self._steps), tuple(rows), tuple(kv), tuple(admits), group)

    def start(self, prepared: PreparedStep, tokens: Sequence[int] | None = None) -> Flight:
        """Start a prepared step; without ``tokens`` nothing is fed and nothing dropped."""
        if tokens is None:
            tokens = [0] * len(prepared.plan.rows)
        return Flight(prepared, self.engine.compute_current(prepared, tokens))

    def step(
        self,
        rows: Sequence[Row],
        kv: Sequence[KvOp] = (),
        admits: Sequence[Admit] = (),
        tokens: Sequence[int] | None = None,
        masks: Mapping[int, bytes] | None = None,
    ) -> StepResult:
        """Prepare, compute and wait: one step, nothing beside it."""
        prepared = self.engine.prepare_next(self.plan(rows, kv, admits), None)
        _, handle = self.start(prepared, tokens)
        if masks is not None:
            handle.supply_masks(masks)
        return handle.result()

    def first(self, stream: Stream, *, masked: bool = False) -> tuple[Row, Trim, Admit]:
        """A stream's whole prompt as one row, and what must come before it."""
        admit = self.admit(stream)
        tokens = tuple(stream.prompt[stream.start :])
        row = Row(stream.slot, stream.epoch, stream.start, tokens, masked=masked)
        stream.position, stream.scheduled = len(stream.prompt), 1
        return row, Trim(stream.slot, stream.start), admit


def next_row(stream: Stream, room: int, *, known: bool = False) -> Row:
    """The stream's share of the next step; ``known``: its last token was read already."""
    position = stream.position
    piece = tuple(stream.prompt[position : position + room])
    if not piece and known:
        piece = (stream.results[-1].token,)
    stream.position += len(piece) or 1
    samples = stream.position >= len(stream.prompt)
    stream.scheduled += samples
    return Row(stream.slot, stream.epoch, position, piece, sample=samples)


def take(result: StepResult, streams: Iterable[Stream]) -> None:
    """Hand a step's results to the streams they belong to."""
    owners = {(stream.slot, stream.epoch): stream for stream in streams}
    for row in result.rows:
        owners[row.slot, row.epoch].results.append(row)
