"""The reference engine: a worker thread that hashes, with delays and faults where asked."""

from __future__ import annotations

import hashlib
import itertools
import math
import os
import queue
import random
import signal
import struct
import sys
import threading
import time
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from lhama.backends.reference import sampling
from lhama.backends.reference.model import RANK, Behaviour
from lhama.backends.reference.tokenizer import EOS, VOCAB, ReferenceTokenizer
from lhama.plugins.backend import (
    DROPPED,
    Admit,
    BackendError,
    Copy,
    EngineLost,
    Limits,
    LoadOptions,
    PreparedStep,
    Residency,
    Row,
    RowResult,
    Shift,
    StepPlan,
    StepResult,
    Trim,
)

TEXTS, TEXT_TOKENS = 8, 64
"""The most that one step embeds; a longer text makes a step alone."""


@dataclass(slots=True)
class Prepared:
    """A prepared step; this engine has nothing to build but keeps the plan."""

    plan: StepPlan


@dataclass(slots=True)
class Handle:
    """A step the worker has or will have."""

    plan: StepPlan
    tokens: Sequence[int]
    done: threading.Event = field(default_factory=threading.Event)
    masked: threading.Event = field(default_factory=threading.Event)
    masks: Mapping[int, bytes] = field(default_factory=dict)
    outcome: StepResult | BaseException | None = None
    linger: float = 0.0

    def result(self) -> StepResult:
        self.done.wait()
        time.sleep(self.linger)
        if isinstance(self.outcome, BaseException):
            raise self.outcome
        assert self.outcome is not None
        return self.outcome

    def supply_masks(self, masks: Mapping[int, bytes]) -> None:
        self.masks = masks
        self.masked.set()


@dataclass(slots=True)
class Embedding:
    """Texts the worker has or will have."""

    inputs: list[Sequence[int]]
    step: int
    done: threading.Event = field(default_factory=threading.Event)
    outcome: list[bytes] | BaseException | None = None

    def result(self) -> list[bytes]:
        self.done.wait()
        if isinstance(self.outcome, BaseException):
            raise self.outcome
        assert self.outcome is not None
        return self.outcome


class ReferenceEngine:
    """Implements ``lhama.plugins.backend.Engine`` and checks that the core keeps its side."""

    def __init__(self, behaviour: Behaviour, options: LoadOptions) -> None:
        self._behaviour = behaviour
        self._script = [*behaviour.says.encode(), EOS] if behaviour.says else []
        embeds = behaviour.pooling > 0
        longest = min(options.context, options.batch) if embeds else options.context
        self.limits = Limits(
            slots=TEXTS if embeds else options.slots,
            context=longest,
            batch_tokens=max(longest, TEXT_TOKENS) if embeds else options.batch,
            vocab=VOCAB,
            token_feed="device" if behaviour.token_feed == "device" else "host",
            groups=behaviour.groups,
            late_mask=True,
            features=_features(behaviour),
        )
        self.residency = Residency(
            "cpu", total_bytes=options.slots * options.context * 8, device_bytes=0
        )
        self.tokenizer = ReferenceTokenizer()
        self._cache: list[list[int]] = [[] for _ in range(options.slots)]
        self._hashes = [_hash(()) for _ in range(options.slots)]
        """Of each slot's cache, kept up with it: a step costs the same however long that is."""
        self._sampling: list[Admit | None] = [None] * options.slots
        self._drawn: list[list[int]] = [[] for _ in range(options.slots)]
        self._last: list[int] = [DROPPED] * options.slots
        self._due = 0.0
        self._said = [0] * options.slots
        self._random = random.Random(behaviour.jitter_seed)
        self._work: queue.SimpleQueue[Handle | Embedding | None] = queue.SimpleQueue()
        self._embedded = itertools.count(1)
        self._worker = threading.Thread(target=self._run, name="reference-engine", daemon=True)
        self._worker.start()

    # ---------------------------------------------------------------------------- the two halves

    def prepare_next(self, plan: StepPlan, previous: PreparedStep | None) -> Prepared:
        if sum(max(len(row.tokens), 1) for row in plan.rows) > self.limits.batch_tokens:
            raise BackendError("the plan has more tokens than batch_tokens")
        size = self.limits.slots // self.limits.groups
        if any(row.slot // size != plan.group for row in plan.rows):
            raise BackendError("the plan has rows of another group")
        self._sleep(self._behaviour.prepare_us)
        self._fault("prepare", plan.step)
        return Prepared(plan)

    def compute_current(self, prepared: PreparedStep, tokens: Sequence[int]) -> Handle:
        handle = Handle(prepared.plan, list(tokens), linger=self._delay(self._behaviour.result_us))
        self._work.put(handle)
        return handle

    def embed(self, inputs: Sequence[Sequence[int]]) -> Embedding:
        if not self._behaviour.pooling:
            raise BackendError("this model gives no embeddings")
        self._require(0 < len(inputs) <= self.limits.slots, f"{len(inputs)} texts in a step")
        longest = max(map(len, inputs))
        self._require(min(map(len, inputs)) > 0, "a text without tokens")
        self._require(longest <= self.limits.context, f"a text of {longest} tokens")
        tokens = sum(map(len, inputs))
        self._require(tokens <= self.limits.batch_tokens, f"a step of {tokens} tokens")
        work = Embedding(list(inputs), next(self._embedded))
        self._work.put(work)
        return work

    def close(self) -> None:
        self._work.put(None)
        self._worker.join()

    # -------------------------------------------------------------------------------- the worker

    def _run(self) -> None:
        while (handle := self._work.get()) is not None:
            try:
                if isinstance(handle, Embedding):
                    handle.outcome = self._embed(handle)
                else:
                    handle.outcome = self._step(handle)
            except Exception as error:
                handle.outcome = error
            handle.done.set()

    def _embed(self, work: Embedding) -> list[bytes]:
        """Eight numbers from each text's digest; a reranker's one, from 0 to 1."""
        self._fault("compute", work.step)
        tokens = sum(map(len, work.inputs))
        self._sleep(self._behaviour.compute_us + tokens * self._behaviour.row_us)
        count = 1 if self._behaviour.pooling == RANK else 8
        vectors = []
        for text in work.inputs:
            if self._behaviour.fault == "text" and self._behaviour.fault_step in text:
                raise BackendError(f"a fault at token {self._behaviour.fault_step} was asked for")
            numbers = [byte / 255 + 0.001 for byte in _hash(text).digest()[:count]]
            if self._behaviour.fault == "nan":
                numbers[-1] = math.nan
            vectors.append(array("f", numbers).tobytes())
        return vectors

    def _step(self, handle: Handle) -> StepResult:
        plan, started = handle.plan, time.monotonic_ns()
        self._fault("compute", plan.step)
        for op in plan.kv:
            self._apply(op)
        for admit in plan.admits:
            self._sampling[admit.slot] = admit
            self._drawn[admit.slot] = list(admit.history)
            self._said[admit.slot] = 0
        live = [
            (row, fed) for row, fed in zip(plan.rows, handle.tokens, strict=True) if fed != DROPPED
        ]
        for row, fed in live:
            self._fill(row, fed)
        tokens = sum(max(len(row.tokens), 1) for row, _ in live)
        self._sleep(self._behaviour.compute_us + tokens * self._behaviour.row_us)
        if any(row.masked for row in plan.rows):
            handle.masked.wait()
        self._pace()
        rows = [self._sample(row, handle.masks.get(row.slot)) for row, _ in live if row.sample]
        if self._hits("row", plan.step) and rows:
            rows[0] = RowResult(rows[0].slot, rows[0].epoch, 0, error="the logits are not finite")
        return StepResult(tuple(rows), time.monotonic_ns() - started)

    def _apply(self, op: Trim | Copy | Shift) -> None:
        match op:
            case Trim(slot, length):
                self._require(length <= len(self._cache[slot]), f"{op} of {len(self._cache[slot])}")
                self._set(slot, self._cache[slot][:length])
            case Copy(source, target, length):
                self._require(
                    length <= len(self._cache[source]), f"{op} of {len(self._cache[source])}"
                )
                self._set(target, self._cache[source][:length])
            case Shift(slot, keep, discard):
                cache = self._cache[slot]
                self._set(slot, cache[:keep] + cache[keep + discard :])

    def _set(self, slot: int, tokens: list[int]) -> None:
        self._cache[slot], self._hashes[slot] = tokens, _hash(tokens)

    def _fill(self, row: Row, fed: int) -> None:
        cache = self._cache[row.slot]
        self._require(row.position == len(cache), f"{row} with {len(cache)} positions cached")
        self._require(len(cache) < self.limits.context, f"{row} beyond the context")
        tokens: Sequence[int] = row.tokens
        if not tokens:
            tokens = (self._last[row.slot] if self.limits.token_feed == "device" else fed,)
        cache.extend(tokens)
        self._hashes[row.slot].update(_packed(tokens))

    def _sample(self, row: Row, mask: bytes | None) -> RowResult:
        admit = self._sampling[row.slot]
        self._require(admit is not None and admit.epoch == row.epoch, f"{row} was not admitted")
        assert admit is not None
        poison = self._behaviour.fault_step if self._behaviour.fault == "poison" else DROPPED
        if poison in self._cache[row.slot]:
            self._last[row.slot] = 0
            return RowResult(row.slot, row.epoch, 0, error="the logits are not finite")
        digest = self._hashes[row.slot].digest()
        asked = admit.sampling
        plain = admit.logprobs < 0 and mask is None and not sampling.penalises(asked)
        if plain and asked.temperature <= 0 and not self._script:
            token = self._last[row.slot] = sampling.likeliest(digest, self._behaviour.end_after)
            return RowResult(row.slot, row.epoch, token)
        logits = self._logits(row.slot, digest)
        norm = math.log(sum(math.exp(value) for value in logits.values()))
        allowed = sampling.allowed(logits, mask)
        likely = sampling.penalised(allowed, asked, self._drawn[row.slot])
        token = self._last[row.slot] = sampling.draw(likely, asked, len(self._cache[row.slot]))
        self._drawn[row.slot].append(token)
        if admit.logprobs < 0:
            return RowResult(row.slot, row.epoch, token)
        ranked = sorted(logits.items(), key=lambda item: -item[1])[: admit.logprobs]
        top = tuple((t, value - norm) for t, value in ranked)
        return RowResult(row.slot, row.epoch, token, logits.get(token, -1e9) - norm, top)

    def _logits(self, slot: int, digest: bytes) -> dict[int, float]:
        """What is likely next: the scripted answer's next token, or a few by hash."""
        script = self._script
        if not script:
            return sampling.logits(digest, self._behaviour.end_after)
        said = self._said[slot]
        self._said[slot] += 1
        return {script[min(said, len(script) - 1)]: 9.0}

    # -------------------------------------------------------------------------- delays and faults

    def _pace(self) -> None:
        """Wait for the moment at which the step may end."""
        if self._behaviour.period_us:
            now = time.monotonic()
            if self._due > now:
                time.sleep(self._due - now)
            self._due = max(self._due, now) + self._behaviour.period_us / 1e6

    def _sleep(self, microseconds: int) -> None:
        if microseconds:
            time.sleep(self._delay(microseconds))

    def _delay(self, microseconds: int) -> float:
        """Seconds, with the jitter that was asked for."""
        if self._behaviour.jitter_seed:
            microseconds = self._random.randint(0, 2 * microseconds)
        return microseconds / 1e6

    def _hits(self, fault: str, step: int) -> bool:
        return self._behaviour.fault == fault and self._behaviour.fault_step == step

    def _fault(self, where: str, step: int) -> None:
        if self._hits(where, step):
            raise BackendError(f"a fault in {where} was asked for at step {step}")
        if where == "compute" and self._hits("lost", step):
            raise EngineLost(f"the end of the engine was asked for at step {step}")
        if where == "compute" and self._hits("crash", step):
            os.kill(os.getpid(), signal.SIGKILL)
        if where == "compute" and self._hits("hang", step):
            threading.Event().wait()
        if where == "compute" and self._hits("shout", step):
            sys.stderr.write("a" * 1_000_000)
            sys.stderr.flush()

    def _require(self, condition: bool, what: str) -> None:
        if not condition:
            raise BackendError(f"the core broke the contract: {what}")


def _features(behaviour: Behaviour) -> frozenset[str]:
    if not behaviour.pooling:
        return frozenset({"shift", "copy"})
    return frozenset({"embed", "rank"} if behaviour.pooling == RANK else {"embed"})


def _packed(tokens: Sequence[int]) -> bytes:
    return struct.pack(f"<{len(tokens)}H", *tokens)


def _hash(tokens: Sequence[int]) -> hashlib.blake2b:
    return hashlib.blake2b(_packed(tokens), digest_size=32)
