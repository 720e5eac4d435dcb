"""Matrices times several rows on the tensor cores, and what lies between for several rows.

A warp takes 16 or more rows of the matrix. Codes are loaded straight into the places where the
tensor core wants its first operand: a lane owns a group of 32 weights, its eight planes (weights
``4p … 4p+3`` for p = 0…7) become eight products over a permuted inner dimension. Activations are
float16 [rows, K] and lie in their natural order. A long inner dimension is cut into parts whose
number depends on the matrix only, so a row's result does not depend on how many rows there are.
"""

from __future__ import annotations

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.ampere import mma_v2

from lhama.backends.pytorch.cuda.kernels.asm import half_of_byte, let_next_start, wait
from lhama.backends.pytorch.cuda.kernels.dot import (
    Q4_1,
    Q4_K,
    Q5_1,
    Q5_K,
    Q6_K,
    Q8_0,
    bytes_of,
    code_words,
    half_scales,
    high_words,
    pick,
    scale_and_minimum,
    weight_at,
)
from lhama.backends.pytorch.cuda.kernels.one_row import activated, token_of

BLOCK = gl.constexpr(8)
"""Groups of 32 weights that a step of the inner loop takes."""


@gluon.constexpr_function
def mma_layout(NW):
    return gl.NVMMADistributedLayout(version=[2, 0], warps_per_cta=[NW, 1], instr_shape=[16, 8])


@gluon.constexpr_function
def bits(START, END):
    """The powers of two from START up to, not including, END."""
    found = []
    while START < END:
        found.append(START)
        START *= 2
    return found


@gluon.constexpr_function
def weight_layout(BN, NW):
    """[rows, groups, words]: reshaped to [rows, 32], the tensor core's first operand."""
    return gl.DistributedLinearLayout(
        reg_bases=[[0, 0, 1], [0, 0, 2], [8, 0, 0], [0, 4, 0]]
        + [[row, 0, 0] for row in bits(16 * NW, BN)],
        lane_bases=[[0, 1, 0], [0, 2, 0], [1, 0, 0], [2, 0, 0], [4, 0, 0]],
        warp_bases=[[row, 0, 0] for row in bits(16, 16 * NW)],
        block_bases=[],
        shape=[BN, 8, 4],
    )


@gluon.constexpr_function
def row_layout(M, NW):
    """[groups, words, rows of activations]: reshaped to [32, M], the second operand."""
    return gl.DistributedLinearLayout(
        reg_bases=[[0, 1, 0], [0, 2, 0], [4, 0, 0]] + [[0, 0, row] for row in bits(8, M)],
        lane_bases=[[1, 0, 0], [2, 0, 0], [0, 0, 1], [0, 0, 2], [0, 0, 4]],
        warp_bases=[[0, 0, 0] for _ in bits(1, NW)],
        block_bases=[],
        shape=[8, 4, M],
    )


@gluon.jit
def load_block(
    w, first, block, FORMAT: gl.constexpr, N: gl.constexpr, K: gl.constexpr, BN: gl.constexpr,
    NW: gl.constexpr,
):  # fmt: skip
    """Raw words of ``BN`` rows and ``BLOCK`` groups; see ``dot.load_tile``."""
    LAYOUT: gl.constexpr = weight_layout(BN, NW)
    PAIRS: gl.constexpr = gl.SliceLayout(2, LAYOUT)
    G: gl.constexpr = K // 32
    MASKED: gl.constexpr = (G % BLOCK != 0) or (N % BN != 0)
    row = first + gl.arange(0, BN, layout=gl.SliceLayout(1, PAIRS))
    group = block * BLOCK + gl.arange(0, BLOCK, layout=gl.SliceLayout(0, PAIRS))
    word = gl.arange(0, 4, layout=gl.SliceLayout(0, gl.SliceLayout(1, LAYOUT)))
    at = row[:, None] * G + group[None, :]
    inside = (row < N)[:, None] & (group < G)[None, :]
    words = at[:, :, None] * 4 + word[None, None, :]
    codes = pick(w, words, inside[:, :, None], MASKED)
    codes_b = codes
    high = at  # stands for nothing, like the next two
    high_b = at
    shared = at
    AFTER: gl.constexpr = N * G * code_words(FORMAT)
    if FORMAT == Q8_0:
        codes_b = pick(w + N * G * 4, words, inside[:, :, None], MASKED)
    if high_words(FORMAT) >= 1:
        high = pick(w + AFTER, at, inside, MASKED)
    if high_words(FORMAT) == 2:
        high_b = pick(w + AFTER + N * G, at, inside, MASKED)
    SCALES: gl.constexpr = AFTER + N * G * high_words(FORMAT)
    if FORMAT == Q4_1 or FORMAT == Q5_1:
        scale = pick(w + SCALES, at, inside, MASKED)
    else:
        halves = (w + SCALES).to(gl.pointer_type(gl.int16))
        scale = pick(halves, at, inside, MASKED).to(gl.int32)
    SUPERS: gl.constexpr = SCALES + N * G // 2
    eighth = row[:, None] * (G // 8) + (group // 8)[None, :]
    if FORMAT == Q4_K or FORMAT == Q5_K:
        shared = pick(w + SUPERS, eighth, inside, MASKED)
    elif FORMAT == Q6_K:
        halves = (w + SUPERS).to(gl.pointer_type(gl.int16))
        shared = pick(halves, eighth, inside, MASKED).to(gl.int32)
    return codes, codes_b, high, high_b, scale, shared


@gluon.constexpr_function
def code_offset(FORMAT):
    """What is taken off a code before it is scaled; codes of Q8_0 are made positive first."""
    return {0: 8, 2: 16, 4: 128, 7: 32}.get(FORMAT, 0)


@gluon.jit
def codes_and_scales(raw, FORMAT: gl.constexpr, LAYOUT: gl.constexpr):
    """Bytes of A and B, and float16 scale and minus minimum of each half of a group."""
    codes, codes_b, high, high_b, scale, shared = raw
    word = gl.arange(0, 4, layout=gl.SliceLayout(0, gl.SliceLayout(1, LAYOUT)))[None, None, :]
    low, top = bytes_of(codes, codes_b, high[:, :, None], high_b[:, :, None], word, FORMAT)
    if FORMAT == Q8_0:
        low = low ^ -2139062144  # 0x80 in every byte
        top = top ^ -2139062144
    if FORMAT == Q6_K:
        first, second = half_scales(scale, shared)
        less = first * 0.0
    else:
        first, less = scale_and_minimum(scale, shared, FORMAT)
        second = first
        if code_offset(FORMAT) > 0:
            less = first * 0.0
    first = first.to(gl.float16)[:, :, None]
    second = second.to(gl.float16)[:, :, None]
    return low, top, first, second, (-less).to(gl.float16)[:, :, None]


@gluon.jit
def plane(
    ready, P: gl.constexpr, FORMAT: gl.constexpr, BN: gl.constexpr, NW: gl.constexpr,
):  # fmt: skip
    """float16 [BN, 32]: weights ``4P … 4P+3`` of each group, as the first operand."""
    low, top, first, second, less = ready
    if P < 4:
        weights = half_of_byte(low, first, less, P, code_offset(FORMAT))
    else:
        weights = half_of_byte(top, second, less, P - 4, code_offset(FORMAT))
    OPERAND: gl.constexpr = gl.DotOperandLayout(0, mma_layout(NW), 4)
    return gl.convert_layout(gl.reshape(weights, [BN, 32]), OPERAND)


@gluon.jit
def activations(x, block, P: gl.constexpr, K: gl.constexpr, M: gl.constexpr, NW: gl.constexpr):
    """float16 [32, M]: elements ``4P … 4P+3`` of each group, as the second operand."""
    LAYOUT: gl.constexpr = row_layout(M, NW)
    PAIRS: gl.constexpr = gl.SliceLayout(2, LAYOUT)
    group = block * BLOCK + gl.arange(0, BLOCK, layout=gl.SliceLayout(1, PAIRS))
    word = gl.arange(0, 4, layout=gl.SliceLayout(0, PAIRS))
    row = gl.arange(0, M, layout=gl.SliceLayout(0, gl.SliceLayout(1, LAYOUT)))
    column = group[:, None] * 32 + 4 * P + word[None, :]
    at = row[None, None, :] * K + column[:, :, None]
    if (K // 32) % BLOCK != 0:
        values = gl.load(x + at, mask=(column < K)[:, :, None], other=0.0)
    else:
        values = gl.load(x + at)
    OPERAND: gl.constexpr = gl.DotOperandLayout(1, mma_layout(NW), 4)
    return gl.convert_layout(gl.reshape(values, [32, M]), OPERAND)


@gluon.jit
def part_of(G: gl.constexpr, PARTS: gl.constexpr):
    """First and last-but-one block of this program's part of the inner dimension."""
    BLOCKS: gl.constexpr = (G + BLOCK - 1) // BLOCK
    EACH: gl.constexpr = (BLOCKS + PARTS - 1) // PARTS
    begin = gl.program_id(1) * EACH
    return begin, gl.minimum(begin + EACH, BLOCKS)


@gluon.jit
def products(
    w, x, first, begin, end, FORMAT: gl.constexpr, N: gl.constexpr, K: gl.constexpr,
    M: gl.constexpr, BN: gl.constexpr, NW: gl.constexpr, PDL: gl.constexpr,
):  # fmt: skip
    """float32 [BN, M]: rows of the matrix times the activations, over blocks begin … end-1."""
    sums = gl.full([BN, M], 0.0, gl.float32, mma_layout(NW))
    raw = load_block(w, first, begin, FORMAT, N, K, BN, NW)
    wait(PDL)
    for block in range(begin, end):
        ahead = load_block(w, first, gl.minimum(block + 1, end - 1), FORMAT, N, K, BN, NW)
        ready = codes_and_scales(raw, FORMAT, weight_layout(BN, NW))
        for p in gl.static_range(8):
            sums = mma_v2(plane(ready, p, FORMAT, BN, NW), activations(x, block, p, K, M, NW), sums)
        raw = ahead
    return sums


@gluon.jit(do_not_specialize=["rows", "column"])
def multiply(
    w, x, bias, y, stride, column, rows,
    N: gl.constexpr, K: gl.constexpr, FORMAT: gl.constexpr, M: gl.constexpr,
    OUT: gl.constexpr, PARTS: gl.constexpr, BIAS: gl.constexpr, BN: gl.constexpr,
    NW: gl.constexpr, PDL: gl.constexpr,
):  # fmt: skip
    """y [PARTS · rows, stride] from ``column`` on: parts of the products, for the reader to sum.

    ``x`` has memory for ``M`` rows, of which ``rows`` are meant; ``OUT`` of the N outputs are.
    """
    let_next_start(PDL)
    first = gl.program_id(0) * BN
    begin, end = part_of(K // 32, PARTS)
    sums = products(w, x, first, begin, end, FORMAT, N, K, M, BN, NW, PDL)
    row = gl.arange(0, M, layout=gl.SliceLayout(0, mma_layout(NW)))[None, :]
    out = (first + gl.arange(0, BN, layout=gl.SliceLayout(1, mma_layout(NW))))[:, None]
    if BIAS:
        sums = sums + gl.load(bias + out, mask=(out < OUT) & (gl.program_id(1) == 0), other=0.0)
    at = (gl.program_id(1) * rows + row) * stride + column + out
    gl.store(y + at, sums, mask=(out < OUT) & (row < rows))


@gluon.jit
def multiply_gated(
    w_gate, w_up, x, y, scale,
    N: gl.constexpr, K: gl.constexpr, FORMAT: gl.constexpr, GELU: gl.constexpr, M: gl.constexpr,
    BN: gl.constexpr, NW: gl.constexpr, PDL: gl.constexpr,
):  # fmt: skip
    """y [M, N] float16 = activation(gate · x) times (up · x) times ``scale``."""
    let_next_start(PDL)
    first = gl.program_id(0) * BN
    end: gl.constexpr = (K // 32 + BLOCK - 1) // BLOCK
    gate = gl.full([BN, M], 0.0, gl.float32, mma_layout(NW))
    up = gate
    raw = load_block(w_gate, first, 0, FORMAT, N, K, BN, NW)
    raw_up = load_block(w_up, first, 0, FORMAT, N, K, BN, NW)
    wait(PDL)
    for block in range(0, end):
        following = gl.minimum(block + 1, end - 1)
        ahead = load_block(w_gate, first, following, FORMAT, N, K, BN, NW)
        ahead_up = load_block(w_up, first, following, FORMAT, N, K, BN, NW)
        ready = codes_and_scales(raw, FORMAT, weight_layout(BN, NW))
        ready_up = codes_and_scales(raw_up, FORMAT, weight_layout(BN, NW))
        for p in gl.static_range(8):
            values = activations(x, block, p, K, M, NW)
            gate = mma_v2(plane(ready, p, FORMAT, BN, NW), values, gate)
            up = mma_v2(plane(ready_up, p, FORMAT, BN, NW), values, up)
        raw = ahead
        raw_up = ahead_up
    row = gl.arange(0, M, layout=gl.SliceLayout(0, mma_layout(NW)))[None, :]
    out = (first + gl.arange(0, BN, layout=gl.SliceLayout(1, mma_layout(NW))))[:, None]
    result = activated(gate, GELU) * up * scale
    gl.store(y + row * N + out, result.to(gl.float16), mask=(out < N) & (row >= 0))


@gluon.jit(do_not_specialize=["rows"])
def multiply_scores(
    w, x, logits, peaks, rows,
    N: gl.constexpr, K: gl.constexpr, VOCAB: gl.constexpr, FORMAT: gl.constexpr,
    SOFTCAP: gl.constexpr, M: gl.constexpr, BN: gl.constexpr, NW: gl.constexpr,
    PDL: gl.constexpr,
):  # fmt: skip
    """Logits [rows, VOCAB] and the largest of each 16 of them; see ``one_row.score``."""
    let_next_start(PDL)
    first = gl.program_id(0) * BN
    end: gl.constexpr = (K // 32 + BLOCK - 1) // BLOCK
    sums = products(w, x, first, 0, end, FORMAT, N, K, M, BN, NW, PDL)
    if SOFTCAP > 0.0:
        sums = SOFTCAP * (1.0 - 2.0 / (1.0 + gl.exp(sums * (2.0 / SOFTCAP))))
    row = gl.arange(0, M, layout=gl.SliceLayout(0, mma_layout(NW)))[None, :]
    out = (first + gl.arange(0, BN, layout=gl.SliceLayout(1, mma_layout(NW))))[:, None]
    gl.store(logits + row * VOCAB + out, sums, mask=(out < VOCAB) & (row < rows))
    sums = gl.where(sums == sums, sums, float("inf"))
    sums = gl.where(out < VOCAB, sums, float("-inf"))
    RUNS: gl.constexpr = gl.BlockedLayout([1, 1], [1, 32], [NW, 1], [1, 0])
    most = gl.convert_layout(gl.max(gl.reshape(sums, [BN // 16, 16, M]), axis=1), RUNS)
    run = first // 16 + gl.arange(0, BN // 16, layout=gl.SliceLayout(1, RUNS))[:, None]
    row = gl.arange(0, M, layout=gl.SliceLayout(0, RUNS))[None, :]
    COUNT: gl.constexpr = (VOCAB + 15) // 16
    gl.store(peaks + row * COUNT + run, most, mask=(run < COUNT) & (row < rows))


@gluon.jit
def peaks_of(logits, peaks, SOFTCAP: gl.constexpr, VOCAB: gl.constexpr):
    """What ``multiply_scores`` does to logits that were computed without it."""
    LAYOUT: gl.constexpr = gl.BlockedLayout([1], [32], [1], [0])
    COUNT: gl.constexpr = (VOCAB + 15) // 16
    row, run = gl.program_id(0), gl.program_id(1)
    out = run * 16 + gl.arange(0, 16, layout=LAYOUT)
    v = gl.load(logits + row * VOCAB + out, mask=out < VOCAB, other=float("-inf"))
    if SOFTCAP > 0.0:
        v = SOFTCAP * (1.0 - 2.0 / (1.0 + gl.exp(v * (2.0 / SOFTCAP))))
        gl.store(logits + row * VOCAB + out, v, mask=out < VOCAB)
    gl.store(peaks + row * COUNT + run, gl.max(gl.where(v == v, v, float("inf")), axis=0))


@gluon.jit
def dequantise(
    w, y, N: gl.constexpr, K: gl.constexpr, FORMAT: gl.constexpr, ROWS: gl.constexpr,
    BN: gl.constexpr, NW: gl.constexpr,
):  # fmt: skip
    """y [ROWS, K] float16: grid of rows / BN and blocks of 256 weights."""
    first = gl.program_id(0) * BN
    block = gl.program_id(1)
    raw = load_block(w, first, block, FORMAT, N, K, BN, NW)
    low, top, scale, second, less = codes_and_scales(raw, FORMAT, weight_layout(BN, NW))
    OFFSET: gl.constexpr = code_offset(FORMAT)
    a = gl.join(
        half_of_byte(low, scale, less, 0, OFFSET), half_of_byte(low, scale, less, 2, OFFSET)
    )
    b = gl.join(
        half_of_byte(low, scale, less, 1, OFFSET), half_of_byte(low, scale, less, 3, OFFSET)
    )
    c = gl.join(
        half_of_byte(top, second, less, 0, OFFSET), half_of_byte(top, second, less, 2, OFFSET)
    )
    d = gl.join(
        half_of_byte(top, second, less, 1, OFFSET), half_of_byte(top, second, less, 3, OFFSET)
    )
    both = gl.join(gl.join(a, b), gl.join(c, d))  # [BN, groups, word, 2, 1, half]
    ordered = gl.reshape(gl.permute(both, [0, 1, 5, 3, 4, 2]), [BN, BLOCK * 32])
    OUT: gl.constexpr = gl.BlockedLayout([1, 8], [1, 32], [NW, 1], [1, 0])
    ordered = gl.convert_layout(ordered, OUT)
    row = (first + gl.arange(0, BN, layout=gl.SliceLayout(1, OUT)))[:, None]
    column = (block * (BLOCK * 32) + gl.arange(0, BLOCK * 32, layout=gl.SliceLayout(0, OUT)))[
        None, :
    ]
    gl.store(y + row * K + column, ordered, mask=(row < ROWS) & (column < K))


@gluon.jit(do_not_specialize_on_alignment=["tokens", "slots"])
def embed_rows(
    w, tokens, slots, last_token, scale, h,
    N: gl.constexpr, VOCAB: gl.constexpr, FORMAT: gl.constexpr, NW: gl.constexpr,
):  # fmt: skip
    """h [rows, N] of the rows' tokens; grid of rows and blocks of 256 columns."""
    LAYOUT: gl.constexpr = gl.BlockedLayout([1], [32], [NW], [0])
    row = gl.program_id(0)
    column = gl.program_id(1) * 256 + gl.arange(0, 256, layout=LAYOUT)
    token = token_of(tokens, slots, last_token, row)
    column = gl.minimum(column, N - 1)  # the last column, written more than once
    gl.store(h + row * N + column, weight_at(w, token, column, FORMAT, VOCAB, N) * scale)


@gluon.jit
def settle(
    parts, stride, post_norm, h, norm, x, eps, scale,
    PARTS: gl.constexpr, N: gl.constexpr, SIZE: gl.constexpr, POST: gl.constexpr,
    NW: gl.constexpr, PDL: gl.constexpr,
):  # fmt: skip
    """A row: h += the sum of ``parts`` times ``scale``; x = normed h.

    ``parts`` are ``stride`` elements apart; ``POST`` norms their sum first. ``SIZE`` is a power
    of two that covers ``N``.
    """
    LAYOUT: gl.constexpr = gl.BlockedLayout([4], [32], [NW], [0])
    let_next_start(PDL)
    row = gl.program_id(0)
    column = gl.arange(0, SIZE, layout=LAYOUT)
    inside = column < N
    weight = gl.load(norm + column, mask=inside, other=0.0)
    if POST:
        post = gl.load(post_norm + column, mask=inside, other=0.0)
    wait(PDL)
    at = row * N + column
    v = gl.load(h + at, mask=inside, other=0.0)
    if PARTS > 0:
        total = gl.load(parts + at, mask=inside, other=0.0)
        for part in gl.static_range(1, PARTS):
            total = total + gl.load(parts + part * stride + at, mask=inside, other=0.0)
        total = total * scale
        if POST:
            total = total * (1.0 / gl.sqrt(gl.sum(total * total, axis=0) / N + eps)) * post
        v = v + total
        gl.store(h + at, v, mask=inside)
    v = v * (1.0 / gl.sqrt(gl.sum(v * v, axis=0) / N + eps)) * weight
    gl.store(x + at, v.to(x.dtype.element_ty), mask=inside)


@gluon.jit
def activate(gate, up, y, scale, stride, N: gl.constexpr, GELU: gl.constexpr, NW: gl.constexpr):
    """y [rows, N] = activation(gate) times up times ``scale``; grid of rows and blocks of 1024.

    Rows of ``gate`` and ``up`` are ``stride`` elements apart.
    """
    LAYOUT: gl.constexpr = gl.BlockedLayout([8], [32], [NW], [0])
    row = gl.program_id(0)
    column = gl.program_id(1) * 1024 + gl.arange(0, 1024, layout=LAYOUT)
    inside = column < N
    g = gl.load(gate + row * stride + column, mask=inside, other=0.0).to(gl.float32)
    u = gl.load(up + row * stride + column, mask=inside, other=0.0).to(gl.float32)
    result = activated(g, GELU) * u * scale
    gl.store(y + row * N + column, result.to(y.dtype.element_ty), mask=inside)
