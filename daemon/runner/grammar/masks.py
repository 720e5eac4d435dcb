"""The state of constrained answers, and what their grammars allow next."""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from llguidance import LLExecutor, LLMatcher

SLOW_MASK = 0.5
"""Seconds. A grammar whose mask takes longer is given up: everybody in its batch waits for it."""

WORTH_THREADS = 0.001
"""Seconds that a step's masks take together from which on several threads compute them."""
MOST_THREADS = 8


class GrammarError(Exception):
    """A grammar cannot go on: it is too complex, or a token was drawn that it forbids."""


class Grammar:
    """The state of one constrained answer."""

    def __init__(self, rule: LLMatcher, layout: LLMatcher | None, signs: Signs) -> None:
        """``rule`` is always kept, ``layout`` until the two have no token in common."""
        self.matchers = [rule] if layout is None else [rule, layout]
        self._signs = signs

    def accept(self, token: int) -> bool:
        """Move on by a drawn token; True when nothing may follow it. Raises ``GrammarError``."""
        rule, *layout = self.matchers
        if not rule.consume_token(token):
            raise GrammarError(words(rule))
        self.matchers = [rule, *(m for m in layout if m.consume_token(token))]
        return any(matcher.is_stopped() for matcher in self.matchers)

    def mask(self, masks: Sequence[bytes]) -> bytes | GrammarError:
        """What may follow, by what each of the matchers allows."""
        rule = self.matchers[0]
        if rule.is_error():
            return GrammarError(words(rule))
        if len(masks) == 1:
            return masks[0]
        allowed, layout = (int.from_bytes(mask, "little") for mask in masks)
        after_value = layout & self._signs.comma and not layout & self._signs.letter
        if after_value and not allowed & self._signs.closing:
            layout &= ~self._signs.space  # there it stands before a closing bracket only
        common = allowed & layout
        return common.to_bytes(len(masks[0]), "little") if common else masks[0]


@dataclass(frozen=True, slots=True)
class Signs:
    """Bit sets of the tokens that tell where in a JSON text one is."""

    comma: int
    letter: int
    """A letter that stands in strings only."""
    closing: int
    """``}`` and ``]``."""
    space: int
    """All that begin with white space."""

    @classmethod
    def of(cls, pieces: Sequence[bytes]) -> Signs:
        """``pieces``: the bytes of every token."""
        return cls(
            comma=_bits(piece == b"," for piece in pieces),
            letter=_bits(piece == b"x" for piece in pieces),
            closing=_bits(piece in (b"}", b"]") for piece in pieces),
            space=_bits(piece[:1] in (b" ", b"\n", b"\t") for piece in pieces),
        )


def _bits(flags: Iterable[bool]) -> int:
    """Bit n is flag n."""
    return int("0" + "".join("01"[flag] for flag in flags)[::-1], 2)


class Masks:
    """Computes the masks of a step's grammars. One thread uses it.

    Most masks take some 20 µs, less than it takes to wake a thread: they are computed in turn, and
    by several threads only where those of the steps before have taken longer.
    """

    def __init__(self, vocab: int) -> None:
        self._size = -(-vocab // 32) * 4
        self._executor: LLExecutor | None = None
        self._each = 0.0

    def compute(self, grammars: Sequence[Grammar]) -> list[bytes | GrammarError]:
        """Allowed next tokens of each, as ``StepHandle.supply_masks`` wants them."""
        if len(grammars) > 1 and self._each * len(grammars) > WORTH_THREADS:
            masks, seconds = self._together(grammars)
            # If one of them is far too slow, that one is found next time, in turn.
            self._each = seconds / len(grammars) if seconds < SLOW_MASK else 0.0
            return masks
        masks, total = [], 0.0
        for grammar in grammars:
            mask, seconds = self._together([grammar])
            masks += mask if seconds < SLOW_MASK else [GrammarError("it is too complex")]
            total += seconds
        self._each = total / max(len(grammars), 1)
        return masks

    def _together(self, grammars: Sequence[Grammar]) -> tuple[list[bytes | GrammarError], float]:
        """Masks, and how long they took in seconds. The interpreter is free meanwhile."""
        if self._executor is None:
            self._executor = LLExecutor(min(os.cpu_count() or 1, MOST_THREADS))
        matchers = [matcher for grammar in grammars for matcher in grammar.matchers]
        size, count = self._size, len(matchers)
        memory = bytearray(size * count)
        address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        jobs = list(zip(matchers, range(count), strict=True))
        began = time.perf_counter()
        self._executor.unsafe_compute_mask_ptr(jobs, address, size, count)
        seconds = time.perf_counter() - began
        parts = iter([bytes(memory[at : at + size]) for at in range(0, size * count, size)])
        return [g.mask([next(parts) for _ in g.matchers]) for g in grammars], seconds


def words(matcher: LLMatcher) -> str:
    """What went wrong, without the names that llguidance gives to where it stopped."""
    lines = (line for line in matcher.get_error().split("\n") if "<" not in line)
    return "\n".join(line for line in lines if line != "NoExtensionBias")
