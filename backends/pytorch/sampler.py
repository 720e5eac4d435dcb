"""Draws tokens from logits: llama.cpp's chain, for all rows of a step at once.

penalties → top_k → typical_p → top_p → min_p → temperature → draw.

A row's draw takes one number made from its seed and position on the host, so nothing that happens
to other rows, and no order in which steps run, changes it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

import torch

from lhama.backends.pytorch.penalties import Penalties, Window
from lhama.plugins.backend import Admit, BackendError, Row, Sampling


class Fault(IntEnum):
    """Why a row gave no token."""

    NONE = 0
    NOT_FINITE = 1
    NOTHING_ALLOWED = 2

    @property
    def text(self) -> str:
        if self is Fault.NOT_FINITE:
            return "the model's logits are not finite numbers"
        return "the grammar allows no token here"


def uniform(seed: int, position: int) -> float:
    """A number in [0, 1) that only seed and position decide: SplitMix64 of both, 24 bits."""
    state = (seed * 0x9E3779B97F4A7C15 + (position + 1) * 0xD1B54A32D192ED03) % 2**64
    for _ in range(2):  # one round leaves neighbouring positions correlated
        state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        state = (state ^ (state >> 27)) * 0x94D049BB133111EB % 2**64
        state ^= state >> 31
    return (state >> 40) / 2**24


@dataclass(slots=True)
class Group:
    """Rows of a step that are drawn alike, and their settings as [rows, 1] columns."""

    rows: torch.Tensor
    """int64 [rows]: which of the step's sampling rows."""
    width: int
    """Candidates to sort: the largest ``top_k`` among them, or the whole vocabulary."""
    settings: torch.Tensor
    """float32 [rows, 6]: top_k, typical_p, top_p, min_p, temperature, the number drawn."""
    typical: bool

    def to(self, device: torch.device) -> Group:
        return Group(
            self.rows.to(device, non_blocking=True),
            self.width,
            self.settings.to(device, non_blocking=True),
            self.typical,
        )


@dataclass(slots=True)
class Request:
    """What ``prepare_next`` staged for the sampling rows of one step."""

    rows: tuple[Row, ...]
    slots: torch.Tensor
    """int64 [rows]."""
    greedy: torch.Tensor
    """int64: the rows that take the most probable token."""
    groups: tuple[Group, ...]
    windows: Window
    logprobs: tuple[int, ...]
    """Alternatives for each row, -1 for no log-probabilities at all."""

    def to(self, device: torch.device) -> Request:
        """The same on the device; the copies are enqueued, not waited for."""
        return Request(
            self.rows,
            self.slots.to(device, non_blocking=True),
            self.greedy.to(device, non_blocking=True),
            tuple(group.to(device) for group in self.groups),
            self.windows.to(device),
            self.logprobs,
        )


@dataclass(slots=True)
class Drawn:
    """What the rows gave; tensors on the device."""

    tokens: torch.Tensor
    """int64 [rows]."""
    faults: torch.Tensor
    """int64 [rows], of ``Fault``."""
    logprobs: torch.Tensor | None = None
    """float32 [rows]."""
    top_ids: torch.Tensor | None = None
    """int64 [rows, n], descending."""
    top_logprobs: torch.Tensor | None = None

    def map(self, function: Callable[[torch.Tensor], torch.Tensor]) -> Drawn:
        """The same with ``function`` of each tensor."""

        def some(tensor: torch.Tensor | None) -> torch.Tensor | None:
            return None if tensor is None else function(tensor)

        return Drawn(
            function(self.tokens),
            function(self.faults),
            some(self.logprobs),
            some(self.top_ids),
            some(self.top_logprobs),
        )


@dataclass(slots=True)
class _Seat:
    """A slot's sequence as far as sampling knows it; host only."""

    admit: Admit
    accepted: int
    """Tokens its penalties look back on: the prompt's and those drawn, scheduled ones included."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One row that samples, with its settings as they were when the step was prepared."""

    row: Row
    sampling: Sampling
    logprobs: int
    accepted: int


class Sampler:
    """Settings of each slot on the host; what penalties look back on lies on the device."""

    def __init__(
        self, slots: int, vocab: int, context: int, device: torch.device, pinned: bool = False
    ) -> None:
        self.penalties = Penalties(slots, context, vocab, device, pinned)
        self._vocab = vocab
        self._pinned = pinned
        self._seats: dict[int, _Seat] = {}

    # ------------------------------------------------------------------------- on the host, ahead

    def admit(self, admit: Admit) -> None:
        """Take in a new sequence's settings."""
        self._seats[admit.slot] = _Seat(admit, len(admit.history))

    def turns(self, rows: Iterable[Row]) -> list[Turn]:
        """The rows that sample; counts their tokens as accepted, so once for each step."""
        found: list[Turn] = []
        for row in rows:
            if row.sample:
                seat = self._seats.get(row.slot)
                if seat is None:
                    raise BackendError(f"slot {row.slot} samples without an admission")
                admit = seat.admit
                found.append(Turn(row, admit.sampling, admit.logprobs, seat.accepted))
                seat.accepted += 1
        return found

    def accept(self, row: Row) -> int:
        """Count one more token of a row whose slot has been admitted; how many there were."""
        seat = self._seats[row.slot]
        seat.accepted += 1
        return seat.accepted - 1

    def seed(self, row: Row) -> int:
        return self._seats[row.slot].admit.sampling.seed

    def stage(self, turns: Sequence[Turn]) -> Request:
        """Tensors for one step's draws."""
        greedy: list[int] = []
        members: dict[int, list[int]] = {}
        for index, turn in enumerate(turns):
            if turn.sampling.temperature <= 0 and turn.sampling.typical_p >= 1:
                greedy.append(index)
            else:
                members.setdefault(self._width(turn.sampling), []).append(index)
        groups = tuple(
            Group(
                self._tensor(indices, torch.int64),
                width,
                self._tensor([_settings(turns[i]) for i in indices]),
                any(turns[i].sampling.typical_p < 1 for i in indices),
            )
            for width, indices in members.items()
        )
        return Request(
            tuple(turn.row for turn in turns),
            self._tensor([turn.row.slot for turn in turns], torch.int64),
            self._tensor(greedy, torch.int64),
            groups,
            self.penalties.window([(t.row.slot, t.sampling, t.accepted) for t in turns]),
            tuple(turn.logprobs for turn in turns),
        )

    def _width(self, sampling: Sampling) -> int:
        """Candidates to look at, in few sizes, so that few rows make few groups."""
        if 0 < sampling.top_k < self._vocab:
            return min(max(64, 1 << (sampling.top_k - 1).bit_length()), self._vocab)
        return self._vocab

    def _tensor(
        self, numbers: Sequence[object], dtype: torch.dtype = torch.float32
    ) -> torch.Tensor:
        return torch.tensor(numbers, dtype=dtype, pin_memory=self._pinned)

    # ------------------------------------------------------------------------------ on the device

    def draw(
        self, logits: torch.Tensor, request: Request, allowed: Mapping[int, torch.Tensor]
    ) -> Drawn:
        """Tokens from ``logits`` [rows, vocab], which is overwritten unless it must be kept.

        ``allowed`` has bool [vocab] for rows under a grammar, by their index.
        """
        faults = torch.isfinite(logits.amax(-1)).logical_not().long() * Fault.NOT_FINITE
        raw = logits
        if request.windows.active or allowed:
            logits = logits.clone()
            self.penalties.apply(logits, request.windows)
            for index, mask in allowed.items():
                logits[index].masked_fill_(~mask, -torch.inf)
            blocked = logits.amax(-1) == -torch.inf
            faults = torch.where(blocked & (faults == 0), int(Fault.NOTHING_ALLOWED), faults)
        tokens = torch.zeros(len(request.rows), dtype=torch.int64, device=logits.device)
        if len(request.greedy):
            tokens[request.greedy] = logits[request.greedy].argmax(-1)
        for group in request.groups:
            values, ids = logits[group.rows].topk(group.width, dim=-1)
            choice = pick(values, group)
            tokens[group.rows] = ids.gather(1, choice).squeeze(1)
        self.penalties.accept(tokens, request.windows)
        return _with_logprobs(Drawn(tokens, faults), raw, request.logprobs)


def _settings(turn: Turn) -> tuple[float, ...]:
    sampling, row = turn.sampling, turn.row
    return (
        sampling.top_k if sampling.top_k > 0 else 1 << 30,
        sampling.typical_p,
        sampling.top_p,
        sampling.min_p,
        sampling.temperature,
        uniform(sampling.seed, row.position + max(len(row.tokens), 1)),
    )


def pick(values: torch.Tensor, group: Group) -> torch.Tensor:
    """Which candidate each row takes: int64 [rows, 1].

    ``values`` are logits in descending order, [rows, candidates].
    """
    temperature, draw = group.settings[:, 4:5], group.settings[:, 5:6]
    values = truncate(values, group)
    # Temperature 0 among typical tokens: the first that is left.
    greedy = temperature <= 0
    share = (values / temperature.masked_fill(greedy, 1.0)).softmax(-1)
    sums = share.cumsum(-1)
    total = sums[:, -1:]
    point = torch.minimum(draw * total, total * (1 - 2**-22))  # below the last sum, rounding or not
    point = point.masked_fill(greedy, 0.0)
    chosen = (sums <= point).sum(-1, keepdim=True)
    return chosen.clamp_max(values.shape[-1] - 1)


def truncate(values: torch.Tensor, group: Group) -> torch.Tensor:
    """``values`` with what top_k, typical_p, top_p and min_p leave out at minus infinity."""
    top_k, typical_p, top_p, min_p = group.settings[:, :4].split(1, dim=-1)
    rank = torch.arange(values.shape[-1], device=values.device)
    values = values.masked_fill(rank >= top_k, -torch.inf)
    if group.typical:
        values = torch.where(typical_p < 1, _typical(values, typical_p), values)
    share = values.softmax(-1)
    before = share.cumsum(-1) - share
    # A first candidate has exactly nothing before it: it stays even at top_p 0.
    keep = (before < top_p) | (before <= 0) | (top_p >= 1)
    least = values.amax(-1, keepdim=True) + min_p.log()  # min_p 0: the logarithm lets all pass
    return values.masked_fill(~(keep & (values >= least)), -torch.inf)


def _typical(values: torch.Tensor, typical_p: torch.Tensor) -> torch.Tensor:
    """Keep the tokens whose surprise is nearest to the expected one, up to ``typical_p``."""
    logs = values.log_softmax(-1)
    share = logs.exp()
    entropy = -(share * logs.nan_to_num(neginf=0.0)).sum(-1, keepdim=True)
    order = (-logs - entropy).abs().argsort(stable=True, dim=-1)
    ranked = share.gather(-1, order)
    before = ranked.cumsum(-1) - ranked
    kept = (before <= typical_p) | (before <= 0)
    keep = torch.zeros_like(kept).scatter(-1, order, kept)
    return values.masked_fill(~keep, -torch.inf)


def _with_logprobs(drawn: Drawn, raw: torch.Tensor, wanted: Sequence[int]) -> Drawn:
    """Add log-probabilities over the raw logits if any row wants them."""
    most = max(wanted, default=-1)
    if most < 0:
        return drawn
    norm = raw.logsumexp(-1, keepdim=True)
    drawn.logprobs = (raw.gather(1, drawn.tokens.unsqueeze(1)) - norm).squeeze(1)
    if most > 0:
        values, drawn.top_ids = raw.topk(min(most, raw.shape[-1]), dim=-1)
        drawn.top_logprobs = values - norm
    return drawn
