"""Matrices times several rows on the tensor cores, and what lies between for several rows.

A warp takes 16 or more rows of the matrix. Codes are loaded straight into the places where the
tensor core wants its first operand: a lane owns a group of 32 weights, its eight planes (weights
``4p … 4p+3`` for p = 0…7) become eight products over a permuted inner dimension. Activations are
float16, laid out for it by ``arrange``: in their natural order every load would touch 16 lines of
the cache, and all warps load all of them. A long inner dimension is cut into parts whose
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
def mma_layout(KW, NW):
    """Of products [KW, rows of the matrix, rows of activations]: KW · NW warps."""
    return gl.NVMMADistributedLayout(
        version=[2, 0], warps_per_cta=[KW, NW, 1], instr_shape=[1, 16, 8]
    )


@gluon.constexpr_function
def bits(START, END):
    """The powers of two from START up to, not including, END."""
    found = []
    while START < END:
        found.append(START)
        START *= 2
    return found


@gluon.constexpr_function
def weight_layout(BN, KW, NW):
    """[KW, rows, groups, words]: reshaped to [KW, rows, 32], the tensor core's first operand."""
    return gl.DistributedLinearLayout(
        reg_bases=[[0, 0, 0, 1], [0, 0, 0, 2], [0, 8, 0, 0], [0, 0, 4, 0]]
        + [[0, row, 0, 0] for row in bits(16 * NW, BN)],
        lane_bases=[[0, 0, 1, 0], [0, 0, 2, 0], [0, 1, 0, 0], [0, 2, 0, 0], [0, 4, 0, 0]],
        warp_bases=[[0, row, 0, 0] for row in bits(16, 16 * NW)]
        + [[k, 0, 0, 0] for k in bits(1, KW)],
        block_bases=[],
        shape=[KW, BN, 8, 4],
    )


@gluon.constexpr_function
def row_layout(M, KW, NW):
    """[KW, M / 8, lanes, 8]: activations as ``arrange`` lays them out, 16 bytes a lane."""
    return gl.DistributedLinearLayout(
        reg_bases=[[0, 0, 0, 1], [0, 0, 0, 2], [0, 0, 0, 4]]
        + [[0, eight, 0, 0] for eight in bits(1, M // 8)],
        lane_bases=[[0, 0, lane, 0] for lane in bits(1, 32)],
        warp_bases=[[0, 0, 0, 0] for _ in bits(1, NW)] + [[k, 0, 0, 0] for k in bits(1, KW)],
        block_bases=[],
        shape=[KW, M // 8, 32, 8],
    )


@gluon.constexpr_function
def place_of(DIM, LAYOUT):
    """``along`` for five dimensions."""
    for other in (4, 3, 2, 1, 0):
        if other != DIM:
            LAYOUT = gl.SliceLayout(other, LAYOUT)
    return LAYOUT


@gluon.constexpr_function
def along(DIM, LAYOUT):
    """Of the numbers along one dimension of four."""
    for other in (3, 2, 1, 0):
        if other != DIM:
            LAYOUT = gl.SliceLayout(other, LAYOUT)
    return LAYOUT


@gluon.jit
def load_block(
    w, first, block, end, FORMAT: gl.constexpr, N: gl.constexpr, K: gl.constexpr,
    BN: gl.constexpr, KW: gl.constexpr, NW: gl.constexpr, MASKED: gl.constexpr,
):  # fmt: skip
    """Raw words of ``BN`` rows and the groups of ``KW`` blocks; see ``dot.load_tile``.

    Blocks from ``end`` on are read as zeros.
    """
    LAYOUT: gl.constexpr = weight_layout(BN, KW, NW)
    G: gl.constexpr = K // 32
    part = block + gl.arange(0, KW, layout=along(0, LAYOUT))[:, None, None]
    row = first + gl.arange(0, BN, layout=along(1, LAYOUT))[None, :, None]
    group = part * BLOCK + gl.arange(0, BLOCK, layout=along(2, LAYOUT))[None, None, :]
    word = gl.arange(0, 4, layout=along(3, LAYOUT))
    at = row * G + group
    inside = (row < N) & (group < G) & (part < end)
    words = at[:, :, :, None] * 4 + word[None, None, None, :]
    codes = pick(w, words, inside[:, :, :, None], MASKED)
    codes_b = codes
    high = at  # stands for nothing, like the next two
    high_b = at
    shared = at
    AFTER: gl.constexpr = N * G * code_words(FORMAT)
    if FORMAT == Q8_0:
        codes_b = pick(w + N * G * 4, words, inside[:, :, :, None], MASKED)
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
    eighth = row * (G // 8) + group // 8
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
    word = gl.arange(0, 4, layout=along(3, LAYOUT))[None, None, None, :]
    high = high[:, :, :, None]
    low, top = bytes_of(codes, codes_b, high, high_b[:, :, :, None], word, FORMAT)
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
    first = first.to(gl.float16)[:, :, :, None]
    second = second.to(gl.float16)[:, :, :, None]
    return low, top, first, second, (-less).to(gl.float16)[:, :, :, None]


@gluon.jit
def plane(
    ready, P: gl.constexpr, FORMAT: gl.constexpr, BN: gl.constexpr, KW: gl.constexpr,
    NW: gl.constexpr,
):  # fmt: skip
    """float16 [KW, BN, 32]: weights ``4P … 4P+3`` of each group, as the first operand."""
    low, top, first, second, less = ready
    if P < 4:
        weights = half_of_byte(low, first, less, P, code_offset(FORMAT))
    else:
        weights = half_of_byte(top, second, less, P - 4, code_offset(FORMAT))
    OPERAND: gl.constexpr = gl.DotOperandLayout(0, mma_layout(KW, NW), 4)
    return gl.convert_layout(gl.reshape(weights, [KW, BN, 32]), OPERAND)


@gluon.jit
def arrange(x, y, K: gl.constexpr, M: gl.constexpr, PDL: gl.constexpr):
    """Activations [M, K] in the order in which lanes want them; grid of blocks and eights of rows.

    ``y`` is [blocks of 256 columns, P, eights of rows, lanes, 8], where a lane's numbers for the
    tensor core lie together: lane ``4 r + g`` has row ``r`` of eight and, of groups ``g`` and
    ``g + 4`` of the block, elements ``4P … 4P+3``. Columns beyond ``K`` are zeros.
    """
    LAYOUT: gl.constexpr = gl.BlockedLayout(
        [1, 2, 1, 1, 4], [1, 1, 4, 8, 1], [4, 1, 1, 1, 1], [4, 3, 2, 1, 0]
    )
    let_next_start(PDL)
    block, eight = gl.program_id(0), gl.program_id(1)
    row = gl.arange(0, 8, layout=place_of(0, LAYOUT))[:, None, None, None, None]
    far = gl.arange(0, 2, layout=place_of(1, LAYOUT))[None, :, None, None, None]
    group = gl.arange(0, 4, layout=place_of(2, LAYOUT))[None, None, :, None, None]
    p = gl.arange(0, 8, layout=place_of(3, LAYOUT))[None, None, None, :, None]
    one = gl.arange(0, 4, layout=place_of(4, LAYOUT))[None, None, None, None, :]
    column = block * (BLOCK * 32) + (far * 4 + group) * 32 + p * 4 + one
    wait(PDL)
    inside = (column < K) & (row >= 0)
    v = gl.load(x + (eight * 8 + row) * K + column, mask=inside, other=0.0)
    line = (block * 8 + p) * (M // 8) + eight
    at = ((line * 32 + row * 4 + group) * 2 + far) * 4 + one
    gl.store(y + at, v.to(y.dtype.element_ty))


@gluon.jit
def activations(
    x, block, end, P: gl.constexpr, M: gl.constexpr, KW: gl.constexpr, NW: gl.constexpr,
    MASKED: gl.constexpr,
):  # fmt: skip
    """float16 [KW, 32, M]: elements ``4P … 4P+3`` of each group, as the second operand."""
    LAYOUT: gl.constexpr = row_layout(M, KW, NW)
    part = block + gl.arange(0, KW, layout=along(0, LAYOUT))[:, None, None, None]
    eight = gl.arange(0, M // 8, layout=along(1, LAYOUT))[None, :, None, None]
    lane = gl.arange(0, 32, layout=along(2, LAYOUT))[None, None, :, None]
    one = gl.arange(0, 8, layout=along(3, LAYOUT))[None, None, None, :]
    at = (((part * 8 + P) * (M // 8) + eight) * 32 + lane) * 8 + one
    if MASKED:
        values = gl.load(x + at, mask=(part < end) & (one >= 0), other=0.0)
    else:
        values = gl.load(x + at)
    return second_operand(values, M, KW, NW)


@gluon.jit
def second_operand(values, M: gl.constexpr, KW: gl.constexpr, NW: gl.constexpr):
    """Activations in ``row_layout`` as [KW, 32, M]."""
    values = gl.reshape(values, [KW, M // 8, 8, 4, 2, 4])  # eights, row, group, far, element
    values = gl.permute(values, [0, 4, 3, 5, 1, 2])
    OPERAND: gl.constexpr = gl.DotOperandLayout(1, mma_layout(KW, NW), 4)
    return gl.convert_layout(gl.reshape(values, [KW, 32, M]), OPERAND)


@gluon.constexpr_function
def blocks_of_part(K, PARTS):
    blocks = (K // 32 + 7) // 8
    return (blocks + PARTS - 1) // PARTS


@gluon.constexpr_function
def needs_mask(N, K, BN, KW, PARTS):
    """Whether some program would read beyond the matrix or its part of it."""
    groups, each = K // 32, blocks_of_part(K, PARTS)
    return N % BN != 0 or groups % 8 != 0 or each % KW != 0 or each * PARTS * 8 != groups


@gluon.jit
def products(
    w, x, first, part, FORMAT: gl.constexpr, N: gl.constexpr, K: gl.constexpr, M: gl.constexpr,
    PARTS: gl.constexpr, BN: gl.constexpr, KW: gl.constexpr, NW: gl.constexpr, PDL: gl.constexpr,
):  # fmt: skip
    """float32 [BN, M]: rows of the matrix times the activations, over a part of the inner dimension.

    KW times NW warps: each KW-th block of the part is another warp's.
    """
    EACH: gl.constexpr = blocks_of_part(K, PARTS)
    MASKED: gl.constexpr = needs_mask(N, K, BN, KW, PARTS)
    TOTAL: gl.constexpr = blocks_of_part(K, 1)
    begin = part * EACH
    end = begin + EACH
    if EACH * PARTS > TOTAL:
        end = gl.minimum(end, TOTAL)
    sums = gl.full([KW, BN, M], 0.0, gl.float32, mma_layout(KW, NW))
    raw = load_block(w, first, begin, end, FORMAT, N, K, BN, KW, NW, MASKED)
    wait(PDL)
    for block in range(begin, end, KW):
        # The last one is read twice: a step too many costs less than a question.
        following = gl.minimum(block + KW, begin + (EACH - 1) // KW * KW)
        ahead = load_block(w, first, following, end, FORMAT, N, K, BN, KW, NW, MASKED)
        ready = codes_and_scales(raw, FORMAT, weight_layout(BN, KW, NW))
        for p in gl.static_range(8):
            values = activations(x, block, end, p, M, KW, NW, MASKED)
            sums = mma_v2(plane(ready, p, FORMAT, BN, KW, NW), values, sums)
        raw = ahead
    return gl.sum(sums, axis=0)


@gluon.constexpr_function
def sum_layout(KW, NW):
    """Of what ``products`` returns."""
    return gl.SliceLayout(0, mma_layout(KW, NW))


@gluon.jit(do_not_specialize=["rows", "column"])
def multiply(
    w, x, bias, y, stride, column, rows,
    N: gl.constexpr, K: gl.constexpr, FORMAT: gl.constexpr, M: gl.constexpr, OUT: gl.constexpr,
    PARTS: gl.constexpr, BIAS: gl.constexpr, BN: gl.constexpr, KW: gl.constexpr,
    NW: gl.constexpr, PDL: gl.constexpr,
):  # fmt: skip
    """y [PARTS · rows, stride] from ``column`` on: parts of the products, for the reader to sum.

    ``x`` is arranged, for ``M`` rows of which ``rows`` are meant; ``OUT`` of the N outputs are.
    """
    LAYOUT: gl.constexpr = sum_layout(KW, NW)
    let_next_start(PDL)
    first = gl.program_id(0) * BN
    part = gl.program_id(1)
    sums = products(w, x, first, part, FORMAT, N, K, M, PARTS, BN, KW, NW, PDL)
    row = gl.arange(0, M, layout=gl.SliceLayout(0, LAYOUT))[None, :]
    out = (first + gl.arange(0, BN, layout=gl.SliceLayout(1, LAYOUT)))[:, None]
    if BIAS:
        sums = sums + gl.load(bias + out, mask=(out < OUT) & (part == 0), other=0.0)
    at = (part * rows + row) * stride + column + out
    gl.store(y + at, sums, mask=(out < OUT) & (row < rows))


@gluon.jit
def multiply_gated(
    w_gate, w_up, x, y, scale,
    N: gl.constexpr, K: gl.constexpr, FORMAT: gl.constexpr, GELU: gl.constexpr, M: gl.constexpr,
    BN: gl.constexpr, KW: gl.constexpr, NW: gl.constexpr, PDL: gl.constexpr,
):  # fmt: skip
    """y [M, N] float16 = activation(gate · x) times (up · x) times ``scale``."""
    LAYOUT: gl.constexpr = sum_layout(KW, NW)
    MASKED: gl.constexpr = needs_mask(N, K, BN, KW, 1)
    END: gl.constexpr = blocks_of_part(K, 1)
    let_next_start(PDL)
    first = gl.program_id(0) * BN
    gate = gl.full([KW, BN, M], 0.0, gl.float32, mma_layout(KW, NW))
    up = gate
    raw = load_block(w_gate, first, 0, END, FORMAT, N, K, BN, KW, NW, MASKED)
    raw_up = load_block(w_up, first, 0, END, FORMAT, N, K, BN, KW, NW, MASKED)
    wait(PDL)
    for block in range(0, END, KW):
        following = gl.minimum(block + KW, (END - 1) // KW * KW)
        ahead = load_block(w_gate, first, following, END, FORMAT, N, K, BN, KW, NW, MASKED)
        ahead_up = load_block(w_up, first, following, END, FORMAT, N, K, BN, KW, NW, MASKED)
        ready = codes_and_scales(raw, FORMAT, weight_layout(BN, KW, NW))
        ready_up = codes_and_scales(raw_up, FORMAT, weight_layout(BN, KW, NW))
        for p in gl.static_range(8):
            values = activations(x, block, END, p, M, KW, NW, MASKED)
            gate = mma_v2(plane(ready, p, FORMAT, BN, KW, NW), values, gate)
            up = mma_v2(plane(ready_up, p, FORMAT, BN, KW, NW), values, up)
        raw = ahead
        raw_up = ahead_up
    row = gl.arange(0, M, layout=gl.SliceLayout(0, LAYOUT))[None, :]
    out = (first + gl.arange(0, BN, layout=gl.SliceLayout(1, LAYOUT)))[:, None]
    result = activated(gl.sum(gate, axis=0), GELU) * gl.sum(up, axis=0) * scale
    gl.store(y + row * N + out, result.to(gl.float16), mask=(out < N) & (row >= 0))


@gluon.jit(do_not_specialize=["rows"])
def multiply_scores(
    w, x, logits, peaks, rows,
    N: gl.constexpr, K: gl.constexpr, VOCAB: gl.constexpr, FORMAT: gl.constexpr,
    SOFTCAP: gl.constexpr, M: gl.constexpr, BN: gl.constexpr, KW: gl.constexpr,
    NW: gl.constexpr, PDL: gl.constexpr,
):  # fmt: skip
    """Logits [rows, VOCAB] and the largest of each 16 of them; see ``one_row.score``."""
    LAYOUT: gl.constexpr = sum_layout(KW, NW)
    let_next_start(PDL)
    first = gl.program_id(0) * BN
    sums = products(w, x, first, 0, FORMAT, N, K, M, 1, BN, KW, NW, PDL)
    if SOFTCAP > 0.0:
        sums = SOFTCAP * (1.0 - 2.0 / (1.0 + gl.exp(sums * (2.0 / SOFTCAP))))
    row = gl.arange(0, M, layout=gl.SliceLayout(0, LAYOUT))[None, :]
    out = (first + gl.arange(0, BN, layout=gl.SliceLayout(1, LAYOUT)))[:, None]
    gl.store(logits + row * VOCAB + out, sums, mask=(out < VOCAB) & (row < rows))
    sums = gl.where(sums == sums, sums, float("inf"))
    sums = gl.where(out < VOCAB, sums, float("-inf"))
    RUNS: gl.constexpr = gl.BlockedLayout([1, 1], [1, 32], [KW * NW, 1], [1, 0])
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
    LAYOUT: gl.constexpr = weight_layout(BN, 1, NW)
    OFFSET: gl.constexpr = code_offset(FORMAT)
    first = gl.program_id(0) * BN
    block = gl.program_id(1)
    MASKED: gl.constexpr = N % BN != 0 or (K // 32) % 8 != 0
    raw = load_block(w, first, block, block + 1, FORMAT, N, K, BN, 1, NW, MASKED)
    low, top, scale, second, less = codes_and_scales(raw, FORMAT, LAYOUT)
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
    both = gl.join(gl.join(a, b), gl.join(c, d))  # [1, BN, groups, word, 2, 1, half]
    ordered = gl.reshape(gl.permute(both, [0, 1, 2, 6, 4, 5, 3]), [BN, BLOCK * 32])
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
