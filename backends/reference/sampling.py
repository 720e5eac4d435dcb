"""What the reference model finds likely, by a hash of all before; and how a token of it is drawn."""

from __future__ import annotations

import itertools
import math
import random
from collections import Counter
from collections.abc import Sequence

from lhama.backends.reference.tokenizer import EOS, VOCAB
from lhama.plugins.backend import Sampling

CANDIDATES = 8
"""Tokens with a finite logit at each position."""

_LETTERS = b"etaoinshrdlu ,.ETAOINSHRDLU\n"


def logits(digest: bytes, end_after: int) -> dict[int, float]:
    """Logits of the few likely tokens; all others count as minus infinity."""
    found = {_LETTERS[digest[n] % len(_LETTERS)]: 4.0 - n / 2 for n in reversed(range(CANDIDATES))}
    if _ends(digest, end_after):
        found[EOS] = 9.0
    return found


def likeliest(digest: bytes, end_after: int) -> int:
    """The token whose logit is the greatest."""
    return EOS if _ends(digest, end_after) else _LETTERS[digest[0] % len(_LETTERS)]


def _ends(digest: bytes, end_after: int) -> bool:
    return bool(end_after) and int.from_bytes(digest[8:12], "little") % end_after == 0


def allowed(logits: dict[int, float], mask: bytes | None) -> dict[int, float]:
    """Those that a mask leaves; where it leaves none of the likely ones, all that it allows."""
    if mask is None:
        return logits
    bits = int.from_bytes(mask, "little")
    found = {token: value for token, value in logits.items() if bits >> token & 1}
    return found or {t: -20.0 for t in range(VOCAB) if bits >> t & 1}


def penalises(sampling: Sampling) -> bool:
    neutral = (sampling.repeat_penalty, sampling.presence_penalty, sampling.frequency_penalty)
    return neutral != (1.0, 0.0, 0.0)


def penalised(
    logits: dict[int, float], sampling: Sampling, drawn: Sequence[int]
) -> dict[int, float]:
    """Penalties on what was drawn lately, as llama.cpp has them."""
    window = sampling.repeat_last_n
    if not penalises(sampling) or window == 0:
        return logits
    counts = Counter(drawn if window < 0 else drawn[-window:])
    found = {}
    for token, value in logits.items():
        if count := counts[token]:
            value = (
                value / sampling.repeat_penalty if value > 0 else value * sampling.repeat_penalty
            )
            value -= count * sampling.frequency_penalty + sampling.presence_penalty
        found[token] = value
    return found


def draw(logits: dict[int, float], sampling: Sampling, position: int) -> int:
    """Greedy, or by a generator of (seed, position): independent of what else runs."""
    if sampling.temperature <= 0:
        return max(logits, key=lambda token: (logits[token], -token))
    ranked = sorted(logits, key=lambda token: (-logits[token], token))
    ranked = ranked[: sampling.top_k] if sampling.top_k > 0 else ranked
    best = logits[ranked[0]]
    weights = [math.exp(logits[token] - best) for token in ranked]
    enough = sampling.top_p * sum(weights)
    sums = itertools.accumulate(weights, initial=0.0)
    kept = [
        token
        for token, weight, before in zip(ranked, weights, sums, strict=False)
        if before < enough and weight >= sampling.min_p
    ]
    source = random.Random(sampling.seed * 1_000_003 + position)
    weights = [math.exp((logits[token] - best) / sampling.temperature) for token in kept]
    return source.choices(kept, weights)[0]
