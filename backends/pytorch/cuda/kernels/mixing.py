"""Which experts a token sees, and the matrices of experts that lie in floats.

A token and one of its experts are a **pair**: number ``token · USED + nth``. Everything here is
decided on the card; grids are for the most that may come.
"""

from __future__ import annotations

import triton
import triton.language as tl

from lhama.backends.pytorch.cuda.kernels.prompts import wait


@triton.jit(do_not_specialize=["rows"])
def route(
    x, router, logits, rows,
    K: tl.constexpr, STRIDE: tl.constexpr, TOKENS: tl.constexpr, EXPERTS: tl.constexpr,
    STEP: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """logits [rows, STRIDE] = x [rows, K] times the router [STRIDE, K] float32.

    Grid: blocks of ``TOKENS`` rows and of ``EXPERTS`` experts. As exact as float32: experts all
    but tied must not change places.
    """
    wait(PDL)
    row = tl.program_id(0) * TOKENS + tl.arange(0, TOKENS)
    expert = tl.program_id(1) * EXPERTS + tl.arange(0, EXPERTS)
    sums = tl.full([TOKENS, EXPERTS], 0.0, tl.float32)
    for first in range(0, K, STEP):
        column = (first + tl.arange(0, STEP))[None, :]
        a = tl.load(x + row[:, None] * K + column, mask=(row < rows)[:, None], other=0.0)
        b = tl.load(router + expert[:, None] * K + column)
        sums = tl.dot(a.to(tl.float32), tl.trans(b), sums, input_precision="tf32x3")
    at = row[:, None] * STRIDE + expert[None, :]
    tl.store(logits + at, sums, mask=(row < rows)[:, None])


@triton.jit
def choose(
    logits, chosen, shares,
    STRIDE: tl.constexpr, EXPERTS: tl.constexpr, UP: tl.constexpr, USED: tl.constexpr,
    PDL: tl.constexpr,
):  # fmt: skip
    """A row: its ``USED`` best experts, best first, and their shares: the softmax over them.

    ``UP`` is a power of two that covers ``EXPERTS``. Of equals the first is better. A row of what
    is no number gets experts that exist, each once, and such shares.
    """
    wait(PDL)
    row = tl.program_id(0)
    expert = tl.arange(0, UP)
    logit = tl.load(logits + row * STRIDE + expert, mask=expert < EXPERTS, other=float("-inf"))
    known = tl.where(logit == logit, logit, float("-inf"))
    place = tl.full([UP], -1, tl.int32)
    for nth in tl.static_range(USED):
        left = (place < 0) & (expert < EXPERTS)
        best = tl.max(tl.where(left, known, float("-inf")), axis=0)
        first = tl.min(tl.where(left & (known == best), expert, UP), axis=0)
        place = tl.where(expert == first, nth, place)
    meant = place >= 0
    share = tl.where(meant, tl.exp(logit - tl.max(known, axis=0)), 0.0)
    share = share / tl.sum(share, axis=0)
    tl.store(chosen + row * USED + place, expert, mask=meant)
    tl.store(shares + row * USED + place, share, mask=meant)


@triton.jit(do_not_specialize=["pairs"], do_not_specialize_on_alignment=["slots"])
def group(
    chosen, slots, members, sizes, pairs,
    USED: tl.constexpr, NOBODY: tl.constexpr, CAPACITY: tl.constexpr, STEP: tl.constexpr,
    PDL: tl.constexpr,
):  # fmt: skip
    """An expert: its pairs in their order, into ``members`` [experts, CAPACITY], and their number.

    Pairs of rows that only fill a batch, whose slot is ``NOBODY``, are nobody's work.
    """
    wait(PDL)
    expert = tl.program_id(0)
    count = expert * 0
    for first in range(0, pairs, STEP):
        pair = first + tl.arange(0, STEP)
        inside = pair < pairs
        mine = tl.load(chosen + pair, mask=inside, other=-1) == expert
        slot = tl.load(slots + pair // USED, mask=inside, other=NOBODY)
        mine = (mine & (slot != NOBODY)).to(tl.int32)
        at = expert * CAPACITY + count + tl.cumsum(mine, axis=0) - 1
        tl.store(members + at, pair, mask=mine > 0)
        count += tl.sum(mine, axis=0)
    tl.store(sizes + expert, count)


@triton.jit(do_not_specialize=["rows"])
def multiply_groups(
    x, w, members, sizes, shares, y, rows,
    N: tl.constexpr, K: tl.constexpr, USED: tl.constexpr, CAPACITY: tl.constexpr,
    DOWN: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, STEP: tl.constexpr,
):  # fmt: skip
    """Pairs times their expert's matrix; ``w`` [experts · N, K] floats. Grid: blocks of ``BN``
    outputs, experts.

    ``x`` [tokens, K] gives ``y`` [pairs, N]; or, where ``DOWN``, ``x`` [pairs, K] gives ``y``
    [USED, rows, N] float32, times the pairs' shares, for the reader to sum.
    """
    expert = tl.program_id(1)
    out = tl.program_id(0) * BN + tl.arange(0, BN)
    count = tl.load(sizes + expert)
    # Rows beyond the expert's are its last one again.
    line = (expert * N + tl.minimum(out, N - 1)).to(tl.int64) * K
    for begin in range(0, count, BM):
        member = begin + tl.arange(0, BM)
        pair = tl.load(members + expert * CAPACITY + tl.minimum(member, count - 1))
        source = (pair if DOWN else pair // USED).to(tl.int64) * K
        sums = tl.full([BM, BN], 0.0, tl.float32)
        for first in range(0, K, STEP):
            column = (first + tl.arange(0, STEP))[None, :]
            if K % STEP == 0:
                a = tl.load(x + source[:, None] + column)
                b = tl.load(w + line[:, None] + column)
            else:
                a = tl.load(x + source[:, None] + column, mask=column < K, other=0.0)
                b = tl.load(w + line[:, None] + column, mask=column < K, other=0.0)
            a = a.to(w.dtype.element_ty)
            sums = tl.dot(a, tl.trans(b), sums, input_precision="tf32x3")
        meant = (member < count)[:, None] & (out < N)[None, :]
        if DOWN:
            sums = sums * tl.load(shares + pair)[:, None]
            at = (pair % USED * rows + pair // USED)[:, None].to(tl.int64) * N + out[None, :]
            tl.store(y + at, sums, mask=meant)
        else:
            at = pair[:, None].to(tl.int64) * N + out[None, :]
            tl.store(y + at, sums.to(y.dtype.element_ty), mask=meant)
