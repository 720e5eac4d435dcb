"""One request while it runs, and the slot it runs in."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from lhama.daemon.runner.answer import Answer
from lhama.daemon.runner.grammar import Grammar
from lhama.plugins.backend import Media, Sampling


@dataclass(slots=True)
class Submission:
    """A request, rendered and tokenized: what the pipeline takes in."""

    id: int
    tokens: list[int]
    """The prompt; never empty."""
    sampling: Sampling
    num_predict: int
    """Most tokens to generate; negative: no limit of its own."""
    num_keep: int
    """Tokens at the front that a context shift keeps."""
    shift: bool
    logprobs: int
    answer: Answer
    grammar: Grammar | None = None
    """Every token is drawn under its mask."""
    media: Mapping[int, Media] = field(default_factory=dict)
    """By the position of their first of ``tokens``, which only fill their places."""


@dataclass(slots=True)
class Slot:
    """One place in the engine's KV cache."""

    index: int
    epoch: int = 0
    cached: list[int] = field(default_factory=list)
    """Tokens whose keys and values lie in the cache, from position 0 on; committed ones only."""
    used_at: int = 0
    """When it was last given back, in steps: the oldest is taken first."""


@dataclass(slots=True, eq=False)
class Sequence:
    """A request in a slot. Three counters, never mixed (docs/architecture.md, "Counters"):

    ``planned`` positions have been given to the engine in some step; ``kv_end`` of them lie in
    steps whose result was read; ``len(tokens)`` tokens are known, the prompt's included.
    """

    request: Submission
    slot: int
    epoch: int
    tokens: list[int]
    planned: int = 0
    kv_end: int = 0
    generated: int = 0
    in_flight: int = 0
    """Samples asked for and not read yet."""
    finished: bool = False
    started_ns: int = field(default_factory=time.monotonic_ns)
    first_token_ns: int = 0
    last_token_ns: int = 0
    cached_tokens: int = 0
    prompt_tokens: int = 0

    @property
    def in_prompt(self) -> bool:
        """Whether known tokens beyond the next one are still to be given to the engine."""
        return self.planned < len(self.tokens) - 1 or (
            self.planned < len(self.tokens) and self.generated == 0
        )

    @property
    def exhausted(self) -> bool:
        """Whether all tokens it may generate are read or on their way."""
        limit = self.request.num_predict
        return 0 <= limit <= self.generated + self.in_flight

    def drop_cached(self, keep: int, discard: int) -> None:
        """Forget ``discard`` tokens after the first ``keep``: the context moves on."""
        del self.tokens[keep : keep + discard]
        self.planned -= discard
        self.kv_end = max(keep, self.kv_end - discard)

    def eval_ns(self) -> int:
        """Time from the first to the last token; llama.cpp's server reports 1000 ns for one."""
        return max(self.last_token_ns - self.first_token_ns, 1000)

    def prompt_ns(self) -> int:
        return max(self.first_token_ns - self.started_ns, 1)
