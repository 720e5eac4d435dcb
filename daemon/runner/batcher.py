"""Decides what each step computes: continuous batching over the engine's slots.

``plan`` looks one step ahead of what is known, ``commit`` takes in a step's results. The batcher
does no waiting and no I/O, and one thread uses it.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass
from operator import attrgetter

from lhama.daemon.runner.grammar import GrammarError, Masks
from lhama.daemon.runner.sequence import Sequence, Slot, Submission
from lhama.plugins.backend import (
    DROPPED,
    Admit,
    Copy,
    KvOp,
    Limits,
    Row,
    RowResult,
    Shift,
    StepPlan,
    StepResult,
    Trim,
)

COPY_GAIN = 32
"""Tokens a cached prefix must save to be worth a copy, or a slot far from the busy ones."""

LEAST_PIECE = 16
"""Tokens a prompt gets at least in a step that it shares with other prompts' pieces."""

NO_RESULT = "the backend gave no result for this request's row"
NO_TOKEN = "the backend gave a token that is not in its vocabulary"


@dataclass(frozen=True, slots=True)
class News:
    """What a step brought one request, in order; turned into frames while the next one runs."""

    sequence: Sequence
    row: RowResult | None = None
    end: str = ""
    """``stop`` or ``length``: this was the last token."""
    error: str = ""


class Batcher:
    """Sequences, slots and the next step. See docs/architecture.md for its invariants."""

    def __init__(self, limits: Limits, end_tokens: frozenset[int]) -> None:
        self._limits = limits
        self._end_tokens = end_tokens
        self._waiting: deque[Submission] = deque()
        self._running: list[Sequence] = []
        self._slots = [Slot(index) for index in range(limits.slots)]
        self._step = 0
        self._news: list[News] = []
        self._masks = Masks(limits.vocab)

    # ------------------------------------------------------------------------ requests come and go

    @property
    def idle(self) -> bool:
        """Whether there is nothing to compute."""
        return not self._running and not self._waiting

    @property
    def running(self) -> int:
        return len(self._running)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def active(self) -> int:
        """Requests taken in and not ended."""
        return len(self._running) + len(self._waiting)

    @property
    def steps(self) -> int:
        """Steps planned so far."""
        return self._step

    def submit(self, request: Submission) -> None:
        self._waiting.append(request)

    def cancel(self, request_id: int) -> None:
        """Forget a request wherever it is. Its slot is free at once: steps run in order, so a step
        in flight is done with the slot before a later step touches it."""
        self._waiting = deque(r for r in self._waiting if r.id != request_id)
        for sequence in self._running:
            if sequence.request.id == request_id:
                self._release(sequence)
                return

    # ---------------------------------------------------------------------------------------- plan

    def plan(self, flying: int = -1) -> StepPlan | None:
        """The next step, counting on every sample in flight to arrive; ``None``: nothing to do.

        ``flying``: the group of the step in flight, if there is one. Another group's step is
        preferred: it need not wait for that one's result.
        """
        groups = self._limits.groups
        for further in range(1, groups + 1):
            plan = self._plan((flying + further) % groups)
            if plan is not None:
                return plan
        return None

    def _plan(self, group: int) -> StepPlan | None:
        """The next step of a group."""
        kv: list[KvOp] = []
        admits: list[Admit] = []
        mine = [sequence for sequence in self._running if self._group(sequence.slot) == group]
        rows = [
            self._decode_row(sequence)
            for sequence in mine  # a full one may end here
            if not sequence.in_prompt and self._has_next(sequence, kv)
        ]
        budget, most = self._for_prompts(mine, len(rows))
        for sequence in mine:
            if sequence.in_prompt and not sequence.finished and budget > 0:
                rows.append(self._prompt_row(sequence, min(budget, most)))
                budget -= rows[-1].size
        while self._waiting and budget > 0:
            slot = self._choose_slot(group)
            if slot is None:
                break
            mine.append(self._admit(self._waiting.popleft(), slot, kv, admits))
            rows.append(self._prompt_row(mine[-1], min(budget, most)))
            budget -= rows[-1].size
        if not rows:
            return None
        rows.sort(key=_slot)
        self._step += 1
        return StepPlan(self._step, tuple(rows), tuple(kv), tuple(admits), group)

    def _group(self, slot: int) -> int:
        return slot * self._limits.groups // self._limits.slots

    def _for_prompts(self, mine: list[Sequence], generating: int) -> tuple[int, int]:
        """How many tokens of prompts a group's step may have, and how many of any one of them.

        While most of its requests generate, prompts get a part of the step, so that nobody's stream
        stops. An engine that wants them cut alike (not ``ragged``) gets equal pieces.
        """
        limits = self._limits
        begun = sum(sequence.in_prompt for sequence in mine)
        free = limits.slots // limits.groups - len(mine)
        coming = -(-len(self._waiting) // limits.groups)  # its share of those that wait
        prompts = begun + min(coming, free)
        budget = limits.batch_tokens - generating
        if generating >= prompts:
            budget = min(budget, int(limits.batch_tokens * limits.prompt_share))
        if limits.ragged or not prompts:
            return budget, budget
        return budget, max(budget // prompts, LEAST_PIECE)

    def _decode_row(self, sequence: Sequence) -> Row:
        position = sequence.planned
        known = tuple(sequence.tokens[position : position + 1])
        sequence.planned += 1
        sequence.in_flight += 1
        masked = sequence.request.grammar is not None
        return Row(sequence.slot, sequence.epoch, position, known, masked=masked)

    def _prompt_row(self, sequence: Sequence, budget: int) -> Row:
        position, media = sequence.planned, sequence.request.media
        if position in media:
            place = media[position]
            sequence.planned += place.positions
            return Row(sequence.slot, sequence.epoch, position, sample=False, media=place)
        end = min([position + budget, *(first for first in media if first > position)])
        tokens = tuple(sequence.tokens[position:end])
        sequence.planned += len(tokens)
        last = sequence.planned == len(sequence.tokens)
        sequence.in_flight += last
        masked = last and sequence.request.grammar is not None
        return Row(sequence.slot, sequence.epoch, position, tokens, sample=last, masked=masked)

    def _has_next(self, sequence: Sequence, kv: list[KvOp]) -> bool:
        """Whether the sequence generates in the coming step; makes room for it if it must."""
        if sequence.exhausted:
            return False
        if sequence.planned < self._limits.context - 1:  # one place stays free, as in llama.cpp
            return True
        if sequence.in_flight:  # full: decide when all of it is known
            return False
        if not sequence.request.shift:
            self._end(sequence, "length")
            return False
        keep = max(0, min(sequence.request.num_keep, self._limits.context - 4))
        discard = max((sequence.planned - keep) // 2, 1)
        sequence.drop_cached(keep, discard)
        if "shift" in self._limits.features:
            kv.append(Shift(sequence.slot, keep, discard))
            return True
        kv.append(Trim(sequence.slot, keep))  # compute the rest anew, as a prompt
        sequence.planned = sequence.kv_end = keep
        return not sequence.in_prompt

    # --------------------------------------------------------------------------------------- slots

    def _choose_slot(self, group: int) -> Slot | None:
        """The free slot of a group for the next request; ``None`` if there is none, or if it is
        rather another group's: a slot there serves it clearly better, or there are fewer."""
        busy = {sequence.slot for sequence in self._running}
        free = [slot for slot in self._slots if slot.index not in busy]
        near = [slot.index for slot in self._slots if self._group(slot.index) == group]
        beside = [index for index in near if index in busy]
        prompt = self._waiting[0].tokens

        def worth(slot: Slot) -> tuple[int, bool, int, int, int]:
            """What its cache saves if that is much; then a slot beside the busy ones (engines
            compute neighbours together); then the cache again; then the oldest."""
            reused = common_prefix(slot.cached, prompt)
            inside = bool(beside) and min(beside) < slot.index < max(beside)
            distance = 0 if inside else min((abs(slot.index - b) for b in beside), default=0)
            mine = slot.index in near
            return reused // COPY_GAIN, mine, -distance, reused, -slot.used_at

        best = max(free, key=worth, default=None)
        if best is None or best.index not in near:
            return None
        # Groups get equally many requests, unless a cache saves much.
        share = -(-self.active // self._limits.groups)
        return best if len(beside) < share or worth(best)[0] else None

    def _admit(
        self, request: Submission, slot: Slot, kv: list[KvOp], admits: list[Admit]
    ) -> Sequence:
        prompt = request.tokens
        reused = common_prefix(slot.cached, prompt)
        group = self._group(slot.index)
        near = [other for other in self._slots if self._group(other.index) == group]
        source = max(near, key=lambda s: common_prefix(self._cached(s), prompt))
        better = common_prefix(self._cached(source), prompt)
        if source is not slot and better >= reused + COPY_GAIN and "copy" in self._limits.features:
            reused = min(better, len(prompt) - 1)
            kv.append(Copy(source.index, slot.index, reused))
        else:
            reused = min(reused, len(prompt) - 1)  # the last token is computed: it is sampled from
            kv.append(Trim(slot.index, reused))
        slot.epoch += 1
        slot.cached = []
        sequence = Sequence(request, slot.index, slot.epoch, list(prompt))
        sequence.planned = sequence.kv_end = sequence.cached_tokens = reused
        sequence.prompt_tokens = len(prompt)
        window = request.sampling.repeat_last_n  # negative: all there is
        seen = prompt if window < 0 else prompt[len(prompt) - min(window, len(prompt)) :]
        history = tuple(token for token in seen if token >= 0)  # media have none
        admits.append(Admit(slot.index, slot.epoch, request.sampling, history, request.logprobs))
        self._running.append(sequence)
        return sequence

    def _cached(self, slot: Slot) -> list[int]:
        """What a slot's cache holds for certain, whether its sequence still runs or not."""
        for sequence in self._running:
            if sequence.slot == slot.index:
                return sequence.tokens[: sequence.kv_end]
        return slot.cached

    def _release(self, sequence: Sequence, *, keep_cache: bool = True) -> None:
        sequence.finished = True
        self._running.remove(sequence)
        slot = self._slots[sequence.slot]
        slot.cached = sequence.tokens[: sequence.kv_end] if keep_cache else []
        slot.used_at = self._step

    # -------------------------------------------------------------------------------------- commit

    def tokens_for(self, plan: StepPlan) -> list[int]:
        """What ``compute_current`` needs beside the plan: tokens that have become known since it
        was made, and which rows' sequences have ended meanwhile."""
        running = {(s.slot, s.epoch): s for s in self._running}
        tokens = []
        for row in plan.rows:
            sequence = running.get((row.slot, row.epoch))
            if sequence is None:
                tokens.append(DROPPED)
            elif row.tokens or row.media or row.position >= len(sequence.tokens):
                tokens.append(0)
            else:
                tokens.append(sequence.tokens[row.position])
        return tokens

    def masks_for(self, plan: StepPlan) -> dict[int, bytes]:
        """The grammar masks of a plan's rows; their sequences' tokens are all known by now."""
        rows = {(row.slot, row.epoch) for row in plan.rows if row.masked}
        masked = [
            (sequence, sequence.request.grammar)
            for sequence in self._running
            if sequence.request.grammar is not None and (sequence.slot, sequence.epoch) in rows
        ]
        masks: dict[int, bytes] = {}
        computed: list[bytes | GrammarError]
        try:
            computed = self._masks.compute([grammar for _, grammar in masked])
        except Exception as error:
            computed = [GrammarError(str(error))] * len(masked)
        for (sequence, _), mask in zip(masked, computed, strict=True):
            if isinstance(mask, GrammarError):  # its trouble is this request's alone
                self._fail(sequence, f"the grammar failed: {mask}")
            else:
                masks[sequence.slot] = mask
        return masks

    def commit(self, plan: StepPlan, result: StepResult) -> None:
        """Take in a step's results. Rows of sequences that have ended are dropped by their epoch."""
        running = {(s.slot, s.epoch): s for s in self._running}
        awaited: dict[tuple[int, int], Sequence] = {}
        now = time.monotonic_ns()
        for row in plan.rows:
            key = row.slot, row.epoch
            if (sequence := running.get(key)) is not None:
                sequence.kv_end = max(sequence.kv_end, row.position + row.size)
                if row.sample:
                    sequence.in_flight -= 1
                    awaited[key] = sequence
        for drawn in result.rows:
            if (sequence := awaited.pop((drawn.slot, drawn.epoch), None)) is not None:
                self._take(sequence, drawn, now)
        for sequence in awaited.values():  # it would wait for ever
            self._fail(sequence, NO_RESULT)

    def _take(self, sequence: Sequence, drawn: RowResult, now: int) -> None:
        if drawn.error or not 0 <= drawn.token < self._limits.vocab:
            self._fail(sequence, drawn.error or NO_TOKEN)
            return
        sequence.last_token_ns = now
        if not sequence.generated:
            sequence.first_token_ns = now
        sequence.generated += 1
        if drawn.token in self._end_tokens:
            self._end(sequence, "stop")
            return
        sequence.tokens.append(drawn.token)
        self._news.append(News(sequence, drawn))
        complete = False
        if (grammar := sequence.request.grammar) is not None:
            try:
                complete = grammar.accept(drawn.token)
            except GrammarError as error:
                self._fail(sequence, f"the grammar failed: {error}")
                return
        if 0 <= sequence.request.num_predict <= sequence.generated:
            self._end(sequence, "length")
        elif complete:
            # Only an end token may follow: it is counted, as where it is drawn, and not computed.
            sequence.generated += 1
            self._end(sequence, "stop")

    def fail_step(self, plan: StepPlan, error: str) -> None:
        """End the requests of a step that could not be computed; what their slots hold is void."""
        rows = {row.slot: row.epoch for row in plan.rows}
        for slot in self._slots:
            slot.cached = [] if slot.index in rows else slot.cached
        for sequence in list(self._running):
            epoch = rows.get(sequence.slot, sequence.epoch + 1)
            # A later occupant that began on what the step should have left there fails, too.
            if epoch == sequence.epoch or (epoch < sequence.epoch and sequence.cached_tokens):
                self._fail(sequence, error)

    def _fail(self, sequence: Sequence, error: str) -> None:
        self._news.append(News(sequence, error=error))
        self._release(sequence, keep_cache=False)

    def _end(self, sequence: Sequence, reason: str) -> None:
        self._news.append(News(sequence, end=reason))
        self._release(sequence)

    def stopped(self, sequence: Sequence) -> None:
        """A stop string was found in the text: the late stop. The row in flight is dropped."""
        if not sequence.finished:
            self._release(sequence)

    def take_news(self) -> list[News]:
        """What happened since the last call, in order."""
        news, self._news = self._news, []
        return news


_slot = attrgetter("slot")


def common_prefix(a: list[int], b: list[int]) -> int:
    """Number of equal tokens at the front."""
    limit = min(len(a), len(b))
    if a[:limit] == b[:limit]:
        return limit
    low, high = 0, limit  # a[:low] == b[:low], a[:high] != b[:high]
    while high - low > 1:
        middle = (low + high) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle
    return low
