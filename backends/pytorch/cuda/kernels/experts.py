"""Quantised experts' matrices, for one token and for several.

The experts' rows lie below one another in one matrix of ``N`` rows, ``ROWS`` for each: an expert is
no more than a first row. Which ones a token sees is known when the kernel before has ended, so no
weights are fetched before ``wait``.
"""

from __future__ import annotations

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.ampere import mma_v2

from lhama.backends.pytorch.cuda.kernels.asm import let_next_start, wait
from lhama.backends.pytorch.cuda.kernels.dot import dot_rows, load_ahead
from lhama.backends.pytorch.cuda.kernels.many_rows import (
    BLOCK,
    along,
    blocks_of_part,
    codes_and_scales,
    load_block,
    mma_layout,
    needs_mask,
    plane,
    row_layout,
    second_operand,
    sum_layout,
    weight_layout,
)
from lhama.backends.pytorch.cuda.kernels.one_row import (
    OUTPUTS,
    activated,
    emit,
    inverse_rms,
    output_layout,
)


@gluon.constexpr_function
def vector_words(K):
    """Words of a vector in bytes with its scales and sums; see ``dot.py``."""
    return (K + 1023) // 1024 * 640


@gluon.constexpr_function
def vector_floats(K):
    """Elements of a vector in float planes."""
    return (K + 255) // 256 * 256


@gluon.jit
def gated_experts(
    w_gate, w_up, x, xf, squares, eps, chosen, y, yf,
    K: gl.constexpr, N: gl.constexpr, ROWS: gl.constexpr, FORMAT: gl.constexpr,
    GELU: gl.constexpr, INTS: gl.constexpr, FLOATS: gl.constexpr, AHEAD: gl.constexpr,
    AHEAD_UP: gl.constexpr, R: gl.constexpr, NW: gl.constexpr, PDL: gl.constexpr,
):  # fmt: skip
    """``one_row.gated`` of one token's experts, a vector [ROWS] of each. Grid: outputs, experts."""
    LAYOUT: gl.constexpr = output_layout(R, NW)
    program, nth = gl.program_id(0), gl.program_id(1)
    let_next_start(PDL)
    wait(PDL)
    first = gl.load(chosen + nth) * ROWS + program * OUTPUTS
    ahead = load_ahead(w_gate, first, AHEAD, FORMAT, N, K, R, NW)
    ahead_up = load_ahead(w_up, first, AHEAD_UP, FORMAT, N, K, R, NW)
    factor = inverse_rms(squares, eps, K, NW)
    gate = dot_rows(ahead, w_gate, first, x, xf, AHEAD, FORMAT, N, K, R, NW) * factor
    up = dot_rows(ahead_up, w_up, first, x, xf, AHEAD_UP, FORMAT, N, K, R, NW) * factor
    y = y + nth * vector_words(ROWS)
    yf = yf + nth * vector_floats(ROWS)
    emit(activated(gate, GELU) * up, program, y, yf, ROWS, INTS, FLOATS, LAYOUT)


@gluon.jit
def add_experts(
    w, x, xf, chosen, shares, h, norm, y, yf, y_squares,
    K: gl.constexpr, N: gl.constexpr, ROWS: gl.constexpr, FORMAT: gl.constexpr,
    USED: gl.constexpr, INTS: gl.constexpr, FLOATS: gl.constexpr, AHEAD: gl.constexpr,
    R: gl.constexpr, NW: gl.constexpr, PDL: gl.constexpr,
):  # fmt: skip
    """``one_row.add`` of one token's experts, in the order of their shares, which weigh them.

    ``x`` and ``xf`` are a vector [K] for each expert.
    """
    LAYOUT: gl.constexpr = output_layout(R, NW)
    program = gl.program_id(0)
    let_next_start(PDL)
    row = program * OUTPUTS + gl.arange(0, OUTPUTS, layout=LAYOUT)
    weight = gl.load(norm + row)
    wait(PDL)
    v = gl.load(h + row)
    first = gl.load(chosen) * ROWS + program * OUTPUTS
    ahead = load_ahead(w, first, AHEAD, FORMAT, N, K, R, NW)
    for nth in gl.static_range(USED):
        # The next expert's weights are fetched while this one's are multiplied.
        next_first = gl.load(chosen + min(nth + 1, USED - 1)) * ROWS + program * OUTPUTS
        next_ahead = load_ahead(w, next_first, AHEAD if nth + 1 < USED else 0, FORMAT, N, K, R, NW)
        said = dot_rows(
            ahead, w, first, x + nth * vector_words(K), xf + nth * vector_floats(K), AHEAD,
            FORMAT, N, K, R, NW,
        )  # fmt: skip
        v = v + said * gl.load(shares + nth)
        first = next_first
        ahead = next_ahead
    gl.store(h + row, v)
    gl.store(y_squares + program, gl.sum(v * v, axis=0))
    emit(v * weight, program, y, yf, ROWS, INTS, FLOATS, LAYOUT)


@gluon.jit
def arrange_each(x, y, K: gl.constexpr, NW: gl.constexpr, PDL: gl.constexpr):
    """``many_rows.arrange`` with every row for itself; grid of rows and blocks of 256 columns.

    ``y`` is [rows, blocks, P, 4 groups, 8]: a lane finds its numbers wherever its row lies.
    """
    LAYOUT: gl.constexpr = gl.BlockedLayout([4], [32], [NW], [0])
    let_next_start(PDL)
    row, block = gl.program_id(0), gl.program_id(1)
    offset = gl.arange(0, BLOCK * 32, layout=LAYOUT)
    column = block * (BLOCK * 32) + offset
    group = offset // 32
    line = offset % 32 // 4 * 4 + group % 4
    at = (line * 2 + group // 4) * 4 + offset % 4
    wait(PDL)
    v = gl.load(x + row * K + column, mask=column < K, other=0.0)
    first = (row * blocks_of_part(K, 1) + block) * (BLOCK * 32)
    gl.store(y + first + at, v.to(y.dtype.element_ty))


@gluon.jit
def expert_products(
    w, x, source, first, FORMAT: gl.constexpr, N: gl.constexpr, ROWS: gl.constexpr,
    K: gl.constexpr, M: gl.constexpr, BN: gl.constexpr, KW: gl.constexpr, NW: gl.constexpr,
):  # fmt: skip
    """``many_rows.products`` of rows that lie anywhere: ``source`` [1, M / 8, 32, 1] says where."""
    LAYOUT: gl.constexpr = row_layout(M, KW, NW)
    MASKED: gl.constexpr = needs_mask(ROWS, K, BN, KW, 1)
    END: gl.constexpr = blocks_of_part(K, 1)
    part = gl.arange(0, KW, layout=along(0, LAYOUT))[:, None, None, None]
    lane = gl.arange(0, 32, layout=along(2, LAYOUT))[None, None, :, None]
    one = gl.arange(0, 8, layout=along(3, LAYOUT))[None, None, None, :]
    own = x + ((source * END + part) * (BLOCK * 32) + lane % 4 * 8 + one)
    sums = gl.full([KW, BN, M], 0.0, gl.float32, mma_layout(KW, NW))
    raw = load_block(w, first, 0, END, FORMAT, N, K, BN, KW, NW, MASKED)
    for block in range(0, END, KW):
        following = gl.minimum(block + KW, (END - 1) // KW * KW)
        ahead = load_block(w, first, following, END, FORMAT, N, K, BN, KW, NW, MASKED)
        ready = codes_and_scales(raw, FORMAT, weight_layout(BN, KW, NW))
        for p in gl.static_range(8):
            at = own + (block * (BLOCK * 32) + p * 32)
            if MASKED:
                values = gl.load(at, mask=(block + part < END) & (one >= 0), other=0.0)
            else:
                values = gl.load(at)
            operand = second_operand(values, M, KW, NW)
            sums = mma_v2(plane(ready, p, FORMAT, BN, KW, NW), operand, sums)
        raw = ahead
    return gl.sum(sums, axis=0)


@gluon.jit
def members_at(members, begin, count, M: gl.constexpr, KW: gl.constexpr, NW: gl.constexpr):
    """The pairs of ``M`` of an expert's members, as ``expert_products`` wants them, and as its
    results lie. Rows that only fill up are the last member again."""
    LAYOUT: gl.constexpr = row_layout(M, KW, NW)
    eight = gl.arange(0, M // 8, layout=along(1, LAYOUT))[None, :, None, None]
    lane = gl.arange(0, 32, layout=along(2, LAYOUT))[None, None, :, None]
    sources = gl.load(members + gl.minimum(begin + eight * 8 + lane // 4, count - 1))
    row = gl.arange(0, M, layout=gl.SliceLayout(0, sum_layout(KW, NW)))[None, :]
    return sources, gl.load(members + gl.minimum(begin + row, count - 1)), begin + row < count


@gluon.jit
def multiply_gated_experts(
    w_gate, w_up, x, members, sizes, y, scale,
    N: gl.constexpr, ROWS: gl.constexpr, K: gl.constexpr, FORMAT: gl.constexpr,
    GELU: gl.constexpr, USED: gl.constexpr, CAPACITY: gl.constexpr, M: gl.constexpr,
    BN: gl.constexpr, KW: gl.constexpr, NW: gl.constexpr, PDL: gl.constexpr,
):  # fmt: skip
    """y [pairs, ROWS] float16 = activation(gate · x) times (up · x) times ``scale``.

    Grid: blocks of ``BN`` rows, experts. ``x`` are tokens as ``arrange_each`` lays them out.
    """
    LAYOUT: gl.constexpr = sum_layout(KW, NW)
    let_next_start(PDL)
    expert = gl.program_id(1)
    out = gl.program_id(0) * BN
    first = expert * ROWS + out
    out = (out + gl.arange(0, BN, layout=gl.SliceLayout(1, LAYOUT)))[:, None]
    wait(PDL)
    count = gl.load(sizes + expert)
    for begin in range(0, count, M):
        sources, pair, meant = members_at(members + expert * CAPACITY, begin, count, M, KW, NW)
        sources = sources // USED
        gate = expert_products(w_gate, x, sources, first, FORMAT, N, ROWS, K, M, BN, KW, NW)
        up = expert_products(w_up, x, sources, first, FORMAT, N, ROWS, K, M, BN, KW, NW)
        result = activated(gate, GELU) * up * scale
        gl.store(y + pair * ROWS + out, result.to(gl.float16), mask=(out < ROWS) & meant)


@gluon.jit(do_not_specialize=["rows"])
def multiply_experts(
    w, x, members, sizes, shares, y, rows,
    N: gl.constexpr, ROWS: gl.constexpr, K: gl.constexpr, FORMAT: gl.constexpr,
    USED: gl.constexpr, CAPACITY: gl.constexpr, M: gl.constexpr, BN: gl.constexpr,
    KW: gl.constexpr, NW: gl.constexpr, PDL: gl.constexpr,
):  # fmt: skip
    """y [USED, rows, ROWS] = products of the pairs, times their shares, for the reader to sum.

    ``x`` are pairs as ``arrange_each`` lays them out; ``rows`` are the step's tokens.
    """
    LAYOUT: gl.constexpr = sum_layout(KW, NW)
    let_next_start(PDL)
    expert = gl.program_id(1)
    out = gl.program_id(0) * BN
    first = expert * ROWS + out
    out = (out + gl.arange(0, BN, layout=gl.SliceLayout(1, LAYOUT)))[:, None]
    wait(PDL)
    count = gl.load(sizes + expert)
    for begin in range(0, count, M):
        sources, pair, meant = members_at(members + expert * CAPACITY, begin, count, M, KW, NW)
        sums = expert_products(w, x, sources, first, FORMAT, N, ROWS, K, M, BN, KW, NW)
        at = (pair % USED * rows + pair // USED) * ROWS + out
        gl.store(y + at, sums * gl.load(shares + pair), mask=(out < ROWS) & meant)
