"""From log-probabilities to one token: the chain that ``lhama.plugins.backend.Sampling`` names."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Sequence

from lhama.plugins.backend import Sampling


def penalised(values: Sequence[float], sampling: Sampling, history: Sequence[int]) -> list[float]:
    """Penalties on the last ``repeat_last_n`` tokens; negative: on all of them."""
    found = list(values)
    window = sampling.repeat_last_n
    lately = history if window < 0 else history[len(history) - min(window, len(history)) :]
    for token, count in Counter(lately).items():
        value = found[token]
        value = value / sampling.repeat_penalty if value > 0 else value * sampling.repeat_penalty
        found[token] = value - count * sampling.frequency_penalty - sampling.presence_penalty
    return found


def allowed(values: Sequence[float], mask: bytes | None) -> dict[int, float]:
    """The tokens that may be drawn; bit t of the mask allows token t."""
    if mask is None:
        return dict(enumerate(values))
    bits = int.from_bytes(mask, "little")
    return {token: value for token, value in enumerate(values) if bits >> token & 1}


def draw(values: dict[int, float], sampling: Sampling, position: int) -> int:
    """A draw depends on seed and position only: neither on the slot nor on what runs beside it."""
    ranked = sorted(values, key=lambda token: (-values[token], token))
    if sampling.temperature <= 0:
        return ranked[0]
    if sampling.top_k > 0:
        ranked = ranked[: sampling.top_k]
    shares = _softmax([values[token] for token in ranked])
    if sampling.typical_p < 1:
        entropy = -sum(share * math.log(share) for share in shares if share)
        odd = [abs(-math.log(share or 1e-300) - entropy) for share in shares]
        order = sorted(range(len(ranked)), key=odd.__getitem__)
        kept = sorted(order[: _enough([shares[n] for n in order], sampling.typical_p)])
        ranked, shares = [ranked[n] for n in kept], [shares[n] for n in kept]
    if sampling.top_p < 1:
        ranked = ranked[: _enough(shares, sampling.top_p)]
    floor = values[ranked[0]] + math.log(sampling.min_p) if sampling.min_p > 0 else -math.inf
    ranked = [token for token in ranked if values[token] >= floor]
    heated = _softmax([values[token] / sampling.temperature for token in ranked])
    return random.Random(sampling.seed << 32 | position).choices(ranked, heated)[0]


def _softmax(values: Sequence[float]) -> list[float]:
    best = max(values)
    weights = [math.exp(value - best) for value in values]
    total = sum(weights)
    return [weight / total for weight in weights]


def _enough(shares: Sequence[float], wanted: float) -> int:
    """How many of the first shares make ``wanted`` together; one at least."""
    total = 0.0
    for count, share in enumerate(shares, 1):
        total += share
        if total >= wanted * sum(shares):
            return count
    return len(shares)
