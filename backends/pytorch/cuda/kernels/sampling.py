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
GROUPS = tl.constexpr(256)
CANDIDATES = tl.constexpr(128)
"""Room for the best and some that come with them."""


@triton.jit
def in_order(x):
    """uint32 that compare as the floats ``x`` do."""
    bits = x.to(tl.int32, bitcast=True)
    return (bits ^ ((bits >> 31) | -2147483648)).to(tl.uint32, bitcast=True)


@triton.jit
def exact_bound(x):
    """The 64th largest of ``x``: two bits at a time, counting those above."""
    keys = in_order(x)
    found = tl.sum(keys * 0, axis=0).to(tl.uint32)
    for step in range(16):
        shift = 30 - 2 * step
        one = found | (tl.full([], 1, tl.uint32) << shift)
        two = found | (tl.full([], 2, tl.uint32) << shift)
        three = found | (tl.full([], 3, tl.uint32) << shift)
        above = (keys >= one).to(tl.int64)
        above += (keys >= two).to(tl.int64) << 20
        above += (keys >= three).to(tl.int64) << 40
        count = tl.sum(above, axis=0)
        found = tl.where((count & 0xFFFFF) >= BEST, one, found)
        found = tl.where(((count >> 20) & 0xFFFFF) >= BEST, two, found)
        found = tl.where((count >> 40) >= BEST, three, found)
    return found


@triton.jit
def are_best(x, COUNT: tl.constexpr):
    """Which of ``x`` [COUNT, a power of two] are among the best 64; some more may be kept, up to 128.

    Of 256 groups' largest the 64th is a bound that at least 64 numbers reach, and mostly few more.
    """
    if COUNT <= CANDIDATES:
        return x > float("-inf")
    else:
        GROUP: tl.constexpr = GROUPS if COUNT >= GROUPS else COUNT
        largest = tl.max(tl.reshape(x, [COUNT // GROUP, GROUP]), axis=0)
        better = tl.zeros([GROUP], tl.int32)
        for part in tl.static_range(GROUP // 64):
            # A quarter of the groups at a time: all pairs would take too many registers.
            others = tl.arange(0, 64) + part * 64
            values = tl.gather(largest, others, axis=0)
            better += tl.sum((values[:, None] > largest[None, :]).to(tl.int32), axis=0)
        bound = tl.min(tl.where(better < BEST, largest, float("inf")), axis=0)
        kept = (x >= bound) & (x > float("-inf"))
        if tl.sum(kept.to(tl.int32), axis=0) > CANDIDATES:
            keys, exact = in_order(x), exact_bound(x)
            room = BEST - tl.sum((keys > exact).to(tl.int32), axis=0)
            equal = (keys == exact).to(tl.int32)  # of which there may be more than are wanted
            kept = (keys > exact) | ((equal > 0) & (tl.cumsum(equal, axis=0) <= room))
            kept = kept & (x > float("-inf"))
        return kept


@triton.jit
def compact(x, kept, scratch, INDICES: tl.constexpr):
    """int32 [CANDIDATES]: the indices of what is kept, in their order, -1 behind the last."""
    slot = tl.arange(0, CANDIDATES)
    rank = tl.cumsum(kept.to(tl.int32), axis=0) - 1
    tl.store(scratch + slot, -1)
    tl.debug_barrier()
    tl.store(scratch + rank, tl.arange(0, INDICES), mask=kept & (rank < CANDIDATES))
    tl.debug_barrier()
    return tl.load(scratch + slot)


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

    ``SIZE`` is a power of two that covers ``PEAKS``; ``number`` is the row's in [0, 1);
    ``scratch`` int32 [rows, 2 · CANDIDATES].
    """
    row = tl.program_id(0)
    index = tl.arange(0, SIZE)
    peak = tl.load(peaks + row * PEAKS + index, mask=index < PEAKS, other=float("-inf"))
    k = tl.minimum(tl.load(top_k + row), BEST)
    p = tl.load(top_p + row)
    least = tl.log(tl.load(min_p + row))
    heat = tl.load(temperature + row)
    point = tl.load(number + row)
    highest = tl.max(peak, axis=0)
    finite = (highest < float("inf")) & (highest > float("-inf"))
    top = tl.where(finite, highest, 0.0)
    # The runs in which the best tokens lie, then the tokens, in the order of the vocabulary.
    scratch += row * (2 * CANDIDATES)
    runs = compact(peak, are_best(peak, SIZE), scratch, SIZE)
    near = tl.reshape(runs[:, None] * RUN + tl.arange(0, RUN)[None, :], [CANDIDATES * RUN])
    line = logits + row.to(tl.int64) * VOCAB
    x = tl.load(line + near, mask=(near >= 0) & (near < VOCAB), other=float("-inf"))
    kept = are_best(x, CANDIDATES * RUN)
    place = compact(x, kept, scratch + CANDIDATES, CANDIDATES * RUN)
    run = tl.load(scratch + place // RUN, mask=place >= 0, other=0)
    token = tl.where(place >= 0, run * RUN + place % RUN, -1)
    x = tl.load(line + token, mask=token >= 0, other=float("-inf"))
    # first[j, i]: candidate j comes before candidate i.
    best = tl.arange(0, CANDIDATES)
    first = x[:, None] > x[None, :]
    first = first | ((x[:, None] == x[None, :]) & (best[:, None] < best[None, :]))
    inside = (tl.sum(first.to(tl.int32), axis=0) < k) & (token >= 0)
    share = tl.where(inside, tl.exp(x - top), 0.0)
    share = share / tl.sum(share, axis=0)
    before = tl.sum(tl.where(first, share[:, None], 0.0), axis=0)
    kept = (before < p) | (before <= 0.0) | (p >= 1.0)
    kept = kept & inside & (x >= top + least)
    greedy = heat <= 0.0
    share = tl.where(kept, tl.exp((x - top) / tl.where(greedy, 1.0, heat)), 0.0)
    first = first & kept[:, None]
    sums = tl.sum(tl.where(first, share[:, None], 0.0), axis=0) + share
    ahead = tl.sum(first.to(tl.int32), axis=0)
    passed = tl.sum((kept & (sums <= point * tl.sum(share, axis=0))).to(tl.int32), axis=0)
    passed = tl.minimum(passed, tl.sum(kept.to(tl.int32), axis=0) - 1)
    passed = tl.where(greedy, 0, passed)
    drawn = tl.sum(tl.where(kept & (ahead == passed), token, 0), axis=0)
    tl.store(last_token + tl.load(slots + row), drawn)
    tl.store(recent + tl.load(places + row), drawn.to(tl.int64))
    tl.store(results + tl.load(ring) * ROWS + row, tl.where(finite, drawn, -1))
