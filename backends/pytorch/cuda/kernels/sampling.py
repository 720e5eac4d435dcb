"""The next token of every row, drawn on the card: penalties, then llama.cpp's chain.

Only rows that look at 64 candidates or fewer (``top_k``), ask for nothing unusual and carry no
mask are drawn here; others take the general way (``lhama.backends.pytorch.sampler``). The output
layer leaves the largest logit of every 16, its **peaks**: the 64 best tokens lie among the 64 best
of these, so a program reads 64 times 16 logits instead of the vocabulary.
"""

from __future__ import annotations

import triton
import triton.language as tl

BEST = tl.constexpr(64)
RUN = tl.constexpr(16)
"""Logits that share a peak."""


@triton.jit
def in_order(x):
    """uint32 that compare as the floats ``x`` do."""
    bits = x.to(tl.int32, bitcast=True)
    return (bits ^ ((bits >> 31) | -2147483648)).to(tl.uint32, bitcast=True)


@triton.jit
def threshold(keys, wanted):
    """The ``wanted``-th largest of ``keys``: two bits at a time, counting those above."""
    found = (wanted * 0).to(tl.uint32)
    for step in tl.static_range(16):
        one = found | (1 << (30 - 2 * step))
        two = found | (2 << (30 - 2 * step))
        three = found | (3 << (30 - 2 * step))
        above = (keys >= one).to(tl.int64)
        above += (keys >= two).to(tl.int64) << 20
        above += (keys >= three).to(tl.int64) << 40
        count = tl.sum(above, axis=0)
        found = tl.where((count & 0xFFFFF) >= wanted, one, found)
        found = tl.where(((count >> 20) & 0xFFFFF) >= wanted, two, found)
        found = tl.where((count >> 40) >= wanted, three, found)
    return found


@triton.jit
def penalise(
    logits, peaks, recent, slots, accepted, sizes, repeat, presence, frequency,
    VOCAB: tl.constexpr, PEAKS: tl.constexpr, LENGTH: tl.constexpr,
):  # fmt: skip
    """Grid: rows. Tokens among a row's last ``sizes`` (at most 64) get their logits lowered.

    ``recent`` holds a ring of ``LENGTH`` tokens for each slot.
    """
    row = tl.program_id(0)
    size = tl.load(sizes + row)
    if size > 0:
        index = tl.arange(0, BEST)
        inside = index < size
        place = (tl.load(accepted + row) - size + index) % LENGTH
        token = tl.load(recent + tl.load(slots + row) * LENGTH + place, mask=inside, other=-1)
        token = token.to(tl.int32)
        same = (token[:, None] == token[None, :]) & inside[None, :]
        count = tl.sum(same.to(tl.float32), axis=1)
        line = logits + row.to(tl.int64) * VOCAB
        x = tl.load(line + token, mask=inside, other=0.0)
        factor = tl.load(repeat + row)
        x = tl.where(x <= 0.0, x * factor, x / factor)
        x -= count * tl.load(frequency + row) + tl.load(presence + row)
        tl.debug_barrier()
        tl.store(line + token, x, mask=inside)
        tl.debug_barrier()
        run = token // RUN
        near = run[:, None] * RUN + tl.arange(0, RUN)[None, :]
        meant = inside[:, None] & (near < VOCAB)
        x = tl.load(line + near, mask=meant, other=float("-inf"))
        x = tl.where(x == x, x, float("inf"))
        tl.store(peaks + row * PEAKS + run, tl.max(x, axis=1), mask=inside)


@triton.jit
def draw(
    logits, peaks, scratch, slots, temperature, top_k, top_p, min_p, number, places, ring,
    last_token, recent, results,
    VOCAB: tl.constexpr, PEAKS: tl.constexpr, SIZE: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """Grid: rows. The token goes to ``last_token[slot]``, to ``recent[place]`` and, for the host,
    to ``results[ring, row]``; -1 there if the logits are no finite numbers.

    ``SIZE`` is a power of two that covers ``PEAKS``; ``number`` is the row's in [0, 1).
    """
    row = tl.program_id(0)
    index = tl.arange(0, SIZE)
    best = tl.arange(0, BEST)
    peak = tl.load(peaks + row * PEAKS + index, mask=index < PEAKS, other=float("-inf"))
    highest = tl.max(peak, axis=0)
    finite = (highest < float("inf")) & (highest > float("-inf"))
    # The runs in which the best tokens lie, in the order of the vocabulary.
    scratch += row * (3 * BEST)
    keys = in_order(peak)
    wanted: tl.constexpr = BEST if PEAKS > BEST else PEAKS
    chosen = (keys >= threshold(keys, row * 0 + wanted)) & (index < PEAKS)
    rank = tl.cumsum(chosen.to(tl.int32), axis=0) - 1
    tl.store(scratch + best, -1)
    tl.debug_barrier()
    tl.store(scratch + rank, index, mask=chosen & (rank < BEST))
    tl.debug_barrier()
    runs = tl.load(scratch + best)
    token = tl.reshape(runs[:, None] * RUN + tl.arange(0, RUN)[None, :], [BEST * RUN])
    inside = (token >= 0) & (token < VOCAB)
    line = logits + row.to(tl.int64) * VOCAB
    x = tl.load(line + token, mask=inside, other=float("-inf"))
    # The best tokens.
    k = tl.minimum(tl.load(top_k + row), BEST)
    keys = in_order(x)
    chosen = (keys >= threshold(keys, tl.minimum(k, VOCAB))) & inside
    rank = tl.cumsum(chosen.to(tl.int32), axis=0) - 1
    tl.store(scratch + BEST + best, -1)
    tl.debug_barrier()
    tl.store(scratch + BEST + rank, token, mask=chosen & (rank < k))
    tl.debug_barrier()
    token = tl.load(scratch + BEST + best)
    inside = token >= 0
    x = tl.load(line + token, mask=inside, other=float("-inf"))
    # first[j, i]: candidate j comes before candidate i.
    first = (x[:, None] > x[None, :]) | (
        (x[:, None] == x[None, :]) & (best[:, None] < best[None, :])
    )
    top = tl.max(x, axis=0)
    share = tl.exp(x - tl.where(finite, top, 0.0))
    share = tl.where(inside, share, 0.0)
    share = share / tl.sum(share, axis=0)
    before = tl.sum(tl.where(first, share[:, None], 0.0), axis=0)
    p = tl.load(top_p + row)
    kept = (before < p) | (before <= 0.0) | (p >= 1.0)
    kept = kept & inside & (x >= top + tl.log(tl.load(min_p + row)))
    heat = tl.load(temperature + row)
    greedy = heat <= 0.0
    share = tl.exp((x - tl.where(finite, top, 0.0)) / tl.where(greedy, 1.0, heat))
    share = tl.where(kept, share, 0.0)
    first = first & kept[:, None]
    sums = tl.sum(tl.where(first, share[:, None], 0.0), axis=0) + share
    place = tl.sum(first.to(tl.int32), axis=0)
    point = tl.load(number + row) * tl.sum(share, axis=0)
    passed = tl.sum((kept & (sums <= point)).to(tl.int32), axis=0)
    passed = tl.minimum(passed, tl.sum(kept.to(tl.int32), axis=0) - 1)
    passed = tl.where(greedy, 0, passed)
    drawn = tl.sum(tl.where(kept & (place == passed), token, 0), axis=0)
    tl.store(last_token + tl.load(slots + row), drawn)
    tl.store(recent + tl.load(places + row), drawn.to(tl.int64))
    tl.store(results + tl.load(ring) * ROWS + row, tl.where(finite, drawn, -1))
