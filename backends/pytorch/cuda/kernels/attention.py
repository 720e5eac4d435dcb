"""Attention of one row's new token over keys and values in pages; and what prompts need first.

A program serves the query heads that share one key-value head, for one **split** of the row's
positions. What was cached before this step is fetched before ``wait``; then come the new token's
query and key, normed and turned by their position, the products, and the split's share of the
softmax. Split 0 also writes the new key and value into the cache. The last program of a head to
finish puts the splits together, in their order.

How many splits a row has, and where they begin, depends on its length only.
"""

from __future__ import annotations

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.ampere import mma_v2

from lhama.backends.pytorch.cuda.kernels.asm import barrier, let_next_start, rounded, wait
from lhama.backends.pytorch.cuda.kernels.one_row import STEPS, per_step

PAGE = gl.constexpr(64)
"""Positions of a page."""
SPLITS = gl.constexpr(16)
"""At most; a power of two."""


@gluon.constexpr_function
def bits(START, END):
    """The powers of two from START up to, not including, END."""
    found = []
    while START < END:
        found.append(START)
        START *= 2
    return found


@gluon.constexpr_function
def unit(DIM, RANK, AMOUNTS):
    """Bases of a layout: steps along one of RANK dimensions."""
    return [[amount if at == DIM else 0 for at in range(RANK)] for amount in AMOUNTS]


@gluon.constexpr_function
def along(DIM, RANK, LAYOUT):
    """Of the numbers along one dimension."""
    for other in range(RANK - 1, -1, -1):
        if other != DIM:
            LAYOUT = gl.SliceLayout(other, LAYOUT)
    return LAYOUT


@gluon.constexpr_function
def positions_of(WIDTH):
    """Positions that a warp looks at together."""
    return min(64, 2048 // WIDTH)


@gluon.constexpr_function
def mma_layout(NW):
    """[warps, 16 heads, positions or dimensions]: every warp has positions of its own."""
    return gl.NVMMADistributedLayout(
        version=[2, 0], warps_per_cta=[NW, 1, 1], instr_shape=[1, 16, 8]
    )


@gluon.constexpr_function
def rows_of(GROUP):
    """Heads that queries are computed for; the tensor core wants 16, the others are zeros."""
    return 16 if GROUP > 8 else 8


@gluon.constexpr_function
def query_layout(WIDTH, ROWS, NW):
    """[1, ROWS heads, WIDTH / 32, 4, 8]: lanes have 8 neighbouring dimensions of each 32.

    Tensor cores take dimensions in any order that both operands share. See ``in_tensor_order``.
    """
    return gl.DistributedLinearLayout(
        reg_bases=unit(4, 5, [1, 2, 4])
        + unit(1, 5, bits(8, ROWS))
        + unit(2, 5, bits(1, WIDTH // 32)),
        lane_bases=unit(3, 5, [1, 2]) + unit(1, 5, [1, 2, 4]),
        warp_bases=unit(0, 5, [0 for _ in bits(1, NW)]),
        block_bases=[],
        shape=[1, ROWS, WIDTH // 32, 4, 8],
    )


@gluon.constexpr_function
def key_layout(WIDTH, NW):
    """[warps, WIDTH / 32, 4, 8, positions]: dimensions as in ``query_layout``."""
    return gl.DistributedLinearLayout(
        reg_bases=unit(3, 5, [1, 2, 4])
        + unit(1, 5, bits(1, WIDTH // 32))
        + unit(4, 5, bits(8, positions_of(WIDTH))),
        lane_bases=unit(2, 5, [1, 2]) + unit(4, 5, [1, 2, 4]),
        warp_bases=unit(0, 5, bits(1, NW)),
        block_bases=[],
        shape=[NW, WIDTH // 32, 4, 8, positions_of(WIDTH)],
    )


@gluon.constexpr_function
def run_of(WIDTH):
    """Neighbouring dimensions of values that a lane has."""
    return 8 if WIDTH >= 64 else 4


@gluon.constexpr_function
def value_layout(WIDTH, NW):
    """[warps, positions, WIDTH / 64, 8 lanes, 8]: with the last two swapped the tensor core's."""
    run = run_of(WIDTH)
    return gl.DistributedLinearLayout(
        reg_bases=unit(4, 5, bits(1, run))
        + unit(1, 5, [1])
        + unit(1, 5, bits(8, positions_of(WIDTH)))
        + unit(2, 5, bits(1, WIDTH // (8 * run))),
        lane_bases=unit(1, 5, [2, 4]) + unit(3, 5, [1, 2, 4]),
        warp_bases=unit(0, 5, bits(1, NW)),
        block_bases=[],
        shape=[NW, positions_of(WIDTH), WIDTH // (8 * run), 8, run],
    )


@gluon.constexpr_function
def join_layout(NW):
    """[splits, runs of 16 dimensions, 16]."""
    return gl.BlockedLayout([16, 1, 4], [1, 8, 4], [1, NW, 1], [2, 1, 0])


@gluon.jit
def counted(page, FAR: gl.constexpr):
    """A page's number; in 64 bits, and what is counted from it, where the cache is too large for 32."""
    if FAR:
        return page.to(gl.int64)
    else:
        return page


@gluon.jit
def summed(x, at, inside, stride, PARTS: gl.constexpr):
    """Elements that lie in ``PARTS`` parts, ``stride`` elements apart."""
    total = gl.load(x + at, mask=inside, other=0.0)
    for part in gl.static_range(1, PARTS):
        total = total + gl.load(x + part * stride + at, mask=inside, other=0.0)
    return total


@gluon.jit
def over_dims(x, FIVE: gl.constexpr):
    """Sum over a head's dimensions, of [heads, dims] or of ``query_layout``; same rank."""
    if FIVE:
        return gl.sum(gl.sum(gl.sum(x, axis=4), axis=3), axis=2)[:, :, None, None, None]
    else:
        return gl.sum(x, axis=1)[:, None]


@gluon.jit
def turned(
    x, head, inside, dim, norm, eps, cos, sin, stride,
    D: gl.constexpr, ROTATED: gl.constexpr, NORM: gl.constexpr, PARTS: gl.constexpr,
    FIVE: gl.constexpr,
):  # fmt: skip
    """float32 of the heads at ``x``, normed and turned by their position.

    ``cos`` and ``sin`` point at the position's row. Dimension i turns with i + ROTATED / 2.
    """
    HALF: gl.constexpr = ROTATED // 2
    lower = dim < HALF
    partner = gl.where(lower, dim + HALF, gl.where(dim < ROTATED, dim - HALF, dim))
    own = summed(x, head * D + dim, inside, stride, PARTS)
    other = summed(x, head * D + partner, inside, stride, PARTS)
    turns = dim < ROTATED
    angle = gl.where(lower, dim, dim - HALF)
    c = gl.load(cos + angle, mask=turns, other=1.0)
    s = gl.load(sin + angle, mask=turns, other=0.0)
    if NORM:
        weight = gl.load(norm + dim, mask=dim < D, other=0.0)
        other_weight = gl.load(norm + partner, mask=dim < D, other=0.0)
        factor = 1.0 / gl.sqrt(over_dims(own * own, FIVE) / D + eps)
        own = own * factor * weight
        other = other * factor * other_weight
    return own * c + gl.where(lower, -other, other) * s


@gluon.jit
def cache(
    x, codes, scales, line, dim, inside, HEADS: gl.constexpr, D: gl.constexpr,
    WIDTH: gl.constexpr, KV8: gl.constexpr,
):  # fmt: skip
    """Write ``x`` [heads, dims] to the cache's lines [heads, 1]."""
    if KV8:
        parts = gl.reshape(x, [HEADS * WIDTH // 32, 32])
        most = gl.max(gl.abs(parts), axis=1)[:, None] + gl.zeros_like(parts)
        most = gl.convert_layout(gl.reshape(most, [HEADS, WIDTH]), x.type.layout)
        q = rounded(x * gl.where(most > 0.0, 127.0 / most, 0.0))
        gl.store(codes + line * D + dim, q.to(gl.int8), mask=inside)
        scale = (most / 127.0).to(gl.float16)
        gl.store(scales + line * (D // 32) + dim // 32, scale, mask=inside & (dim % 32 == 0))
    else:
        gl.store(codes + line * D + dim, x.to(codes.dtype.element_ty), mask=inside)


@gluon.jit(do_not_specialize_on_alignment=["slots", "positions"])
def spread(
    qkv, cos, sin, q_norm, k_norm, eps, keys, values, key_scales, value_scales, tables, slots,
    positions, q_out, stride,
    HEADS: gl.constexpr, KV_HEADS: gl.constexpr, D: gl.constexpr, ROTATED: gl.constexpr,
    HEADS_UP: gl.constexpr, KV_UP: gl.constexpr, WIDTH: gl.constexpr, SCALE: gl.constexpr,
    NORM: gl.constexpr, PARTS: gl.constexpr, PAGES: gl.constexpr, KV8: gl.constexpr,
    FAR: gl.constexpr, NW: gl.constexpr, PDL: gl.constexpr,
):  # fmt: skip
    """One token a program: key and value go to the cache, queries to ``q_out``, turned and scaled.

    ``qkv`` [PARTS, tokens, (HEADS + 2 KV_HEADS) · D], parts ``stride`` apart; ``q_out`` float16
    [tokens, HEADS · D]. ``HEADS_UP`` and ``KV_UP`` are powers of two that cover the heads.
    """
    LANES: gl.constexpr = WIDTH // 8
    LAYOUT: gl.constexpr = gl.BlockedLayout([1, 8], [32 // LANES, LANES], [NW, 1], [1, 0])
    HALF: gl.constexpr = ROTATED // 2
    let_next_start(PDL)
    token = gl.program_id(0)
    position = gl.load(positions + token)
    page = counted(gl.load(tables + gl.load(slots + token) * PAGES + position // PAGE), FAR)
    dim = gl.arange(0, WIDTH, layout=gl.SliceLayout(0, LAYOUT))[None, :]
    new = qkv + token * ((HEADS + 2 * KV_HEADS) * D)
    cos = cos + position * HALF
    sin = sin + position * HALF
    wait(PDL)
    head = gl.arange(0, HEADS_UP, layout=gl.SliceLayout(1, LAYOUT))[:, None]
    inside = (head < HEADS) & (dim < D)
    q = turned(
        new, head, inside, dim, q_norm, eps, cos, sin, stride, D, ROTATED, NORM, PARTS, False
    )
    at = token * (HEADS * D) + head * D + dim
    gl.store(q_out + at, (q * SCALE).to(q_out.dtype.element_ty), mask=inside)
    head = gl.arange(0, KV_UP, layout=gl.SliceLayout(1, LAYOUT))[:, None]
    inside = (head < KV_HEADS) & (dim < D)
    line = (page * KV_HEADS + head) * PAGE + position % PAGE
    k = turned(
        new + HEADS * D, head, inside, dim, k_norm, eps, cos, sin, stride, D, ROTATED, NORM,
        PARTS, False,
    )  # fmt: skip
    v = summed(new + (HEADS + KV_HEADS) * D, head * D + dim, inside, stride, PARTS)
    cache(k, keys, key_scales, line, dim, inside, KV_UP, D, WIDTH, KV8)
    cache(v, values, value_scales, line, dim, inside, KV_UP, D, WIDTH, KV8)


@gluon.jit
def load_lines(
    lines, table, base, place, position, kv, dim, inside, KV_HEADS: gl.constexpr,
    D: gl.constexpr, FAR: gl.constexpr,
):  # fmt: skip
    """Of the cache at ``place`` and some dimensions; zeros where not ``inside``.

    All places that share a ``base`` lie in one page.
    """
    page = counted(gl.load(table + base // PAGE, mask=base < position, other=0), FAR)
    line = (page * KV_HEADS + kv) * PAGE + place % PAGE
    return gl.load(lines + line * D + dim, mask=inside & (dim < D), other=0.0)


@gluon.jit
def load_tile(
    keys, values, table, tile, start, position, kv,
    KV_HEADS: gl.constexpr, D: gl.constexpr, WIDTH: gl.constexpr, FAR: gl.constexpr,
    NW: gl.constexpr,
):  # fmt: skip
    """Keys [NW, WIDTH, positions] and values [NW, positions, WIDTH], as the tensor core's operands."""
    EACH: gl.constexpr = positions_of(WIDTH)
    RUN: gl.constexpr = run_of(WIDTH)
    KEYS: gl.constexpr = key_layout(WIDTH, NW)
    VALUES: gl.constexpr = value_layout(WIDTH, NW)
    warp = gl.arange(0, NW, layout=along(0, 5, KEYS))[:, None, None, None, None]
    chunk = gl.arange(0, WIDTH // 32, layout=along(1, 5, KEYS))[None, :, None, None, None]
    lane = gl.arange(0, 4, layout=along(2, 5, KEYS))[None, None, :, None, None]
    one = gl.arange(0, 8, layout=along(3, 5, KEYS))[None, None, None, :, None]
    place = gl.arange(0, EACH, layout=along(4, 5, KEYS))[None, None, None, None, :]
    base = (tile * NW + warp) * EACH
    place = base + place
    dim = chunk * 32 + lane * 8 + one
    inside = (place >= start) & (place < position)
    k = load_lines(keys, table, base, place, position, kv, dim, inside, KV_HEADS, D, FAR)
    warp = gl.arange(0, NW, layout=along(0, 5, VALUES))[:, None, None, None, None]
    place = gl.arange(0, EACH, layout=along(1, 5, VALUES))[None, :, None, None, None]
    part = gl.arange(0, WIDTH // (8 * RUN), layout=along(2, 5, VALUES))[None, None, :, None, None]
    lane = gl.arange(0, 8, layout=along(3, 5, VALUES))[None, None, None, :, None]
    one = gl.arange(0, RUN, layout=along(4, 5, VALUES))[None, None, None, None, :]
    base = (tile * NW + warp) * EACH
    place = base + place
    dim = (part * 8 + lane) * RUN + one
    inside = (place >= start) & (place < position)
    v = load_lines(values, table, base, place, position, kv, dim, inside, KV_HEADS, D, FAR)
    FIRST: gl.constexpr = gl.DotOperandLayout(1, mma_layout(NW), 4)
    k = gl.permute(gl.reshape(k, [NW, WIDTH // 32, 4, 2, 4, EACH]), [0, 1, 3, 2, 4, 5])
    k = gl.reshape(k, [NW, WIDTH, EACH])
    SECOND: gl.constexpr = gl.DotOperandLayout(1, mma_layout(NW), 2)
    v = gl.reshape(gl.permute(v, [0, 1, 2, 4, 3]), [NW, EACH, WIDTH])
    return gl.convert_layout(k, FIRST), gl.convert_layout(v, SECOND)


@gluon.jit
def capped(scores, SOFTCAP: gl.constexpr):
    if SOFTCAP > 0.0:
        return SOFTCAP * (1.0 - 2.0 / (1.0 + gl.exp(scores * (2.0 / SOFTCAP))))
    else:
        return scores


@gluon.jit
def first_operand(q, ROWS: gl.constexpr, WIDTH: gl.constexpr, NW: gl.constexpr):
    """Queries in ``query_layout`` as [NW, 16, WIDTH], the same for every warp."""
    q = gl.permute(gl.reshape(q, [1, ROWS, WIDTH // 32, 4, 2, 4]), [0, 1, 2, 4, 3, 5])
    q = gl.reshape(q, [1, ROWS, WIDTH])
    if ROWS == 8:
        q = gl.reshape(gl.permute(gl.join(q, gl.zeros_like(q)), [0, 3, 1, 2]), [1, 16, WIDTH])
    OPERAND: gl.constexpr = gl.DotOperandLayout(0, mma_layout(NW), 4)
    q = gl.convert_layout(q, OPERAND)
    q, _every = gl.broadcast(q, gl.full([NW, 16, WIDTH], 0.0, gl.float16, OPERAND))
    return q


@gluon.jit
def up_to_16(x, ROWS: gl.constexpr):
    """16 numbers: those of ``x``, and zeros."""
    if ROWS == 8:
        return gl.reshape(gl.permute(gl.join(x, gl.zeros_like(x)), [1, 0]), [16])
    else:
        return x


@gluon.jit
def attend(
    qkv, cos, sin, q_norm, k_norm, eps, keys, values, tables, slots, positions, parts, states,
    tickets, y, yf,
    HEADS: gl.constexpr, KV_HEADS: gl.constexpr, D: gl.constexpr, ROTATED: gl.constexpr,
    GROUP: gl.constexpr, WIDTH: gl.constexpr, SCALE: gl.constexpr, NORM: gl.constexpr,
    WINDOW: gl.constexpr, SOFTCAP: gl.constexpr, PAGES: gl.constexpr, INTS: gl.constexpr,
    FLOATS: gl.constexpr, FAR: gl.constexpr, NW: gl.constexpr, PDL: gl.constexpr,
):  # fmt: skip
    """One row's token, heads of up to 128 dimensions, a float16 cache. Grid: key-value heads, splits. ``qkv`` [(HEADS + 2 KV_HEADS) · D] float32.

    ``GROUP`` (at most 16) and ``WIDTH`` (32 to 128): powers of two that cover the heads of a group
    and ``D``. ``parts`` [HEADS, SPLITS, D] and ``states`` [HEADS, SPLITS, 2] are scratch,
    ``tickets`` [KV_HEADS] are zero before and after.
    """
    MMA: gl.constexpr = mma_layout(NW)
    ROWS: gl.constexpr = rows_of(GROUP)
    QUERY: gl.constexpr = query_layout(WIDTH, ROWS, NW)
    EACH: gl.constexpr = positions_of(WIDTH)
    TILE: gl.constexpr = NW * EACH
    SHARED: gl.constexpr = HEADS // KV_HEADS
    RUN: gl.constexpr = run_of(WIDTH)
    HALF: gl.constexpr = ROTATED // 2
    kv, split = gl.program_id(0), gl.program_id(1)
    let_next_start(PDL)
    position = gl.load(positions)
    start = position * 0
    if WINDOW > 0:
        start = gl.maximum(position - (WINDOW - 1), 0)
    first = start // TILE
    tiles = gl.maximum((position + TILE - 1) // TILE - first, 1)
    each = (tiles + SPLITS - 1) // SPLITS
    used = (tiles + each - 1) // each
    if split < used:
        begin = first + split * each
        end = gl.minimum(begin + each, first + tiles)
        table = tables + gl.load(slots) * PAGES
        k, v = load_tile(
            keys, values, table, begin, start, position, kv, KV_HEADS, D, WIDTH, FAR, NW
        )
        page = counted(gl.load(table + position // PAGE), FAR)
        wait(PDL)

        head = gl.arange(0, ROWS, layout=along(1, 5, QUERY))[None, :, None, None, None]
        chunk = gl.arange(0, WIDTH // 32, layout=along(2, 5, QUERY))[None, None, :, None, None]
        lane = gl.arange(0, 4, layout=along(3, 5, QUERY))[None, None, None, :, None]
        one = gl.arange(0, 8, layout=along(4, 5, QUERY))[None, None, None, None, :]
        dim = chunk * 32 + lane * 8 + one
        cos = cos + position * HALF
        sin = sin + position * HALF
        inside = (head < SHARED) & (dim < D)
        q = turned(
            qkv + kv * (SHARED * D), head, inside, dim, q_norm, eps, cos, sin, 0, D, ROTATED,
            NORM, 1, True,
        ) * SCALE  # fmt: skip
        new_k = turned(
            qkv + (HEADS + kv) * D, head * 0, inside, dim, k_norm, eps, cos, sin, 0, D, ROTATED,
            NORM, 1, True,
        )  # fmt: skip
        new_score = capped(over_dims(q * new_k, True), SOFTCAP)
        BY_HEAD: gl.constexpr = gl.SliceLayout(0, gl.SliceLayout(2, MMA))
        new_score = gl.convert_layout(up_to_16(gl.reshape(new_score, [ROWS]), ROWS), BY_HEAD)
        queries = first_operand(q.to(gl.float16), ROWS, WIDTH, NW)

        highest = gl.full([NW, 16], float("-inf"), gl.float32, gl.SliceLayout(2, MMA))
        total = gl.full([NW, 16], 0.0, gl.float32, gl.SliceLayout(2, MMA))
        mixed = gl.full([NW, 16, WIDTH], 0.0, gl.float32, MMA)
        for tile in range(begin, end):
            if tile > begin:
                k, v = load_tile(
                    keys, values, table, tile, start, position, kv, KV_HEADS, D, WIDTH, FAR, NW
                )
            scores = mma_v2(queries, k, gl.full([NW, 16, EACH], 0.0, gl.float32, MMA))
            scores = capped(scores, SOFTCAP)
            warp = gl.arange(0, NW, layout=along(0, 3, MMA))[:, None, None]
            place = gl.arange(0, EACH, layout=along(2, 3, MMA))[None, None, :]
            place = (tile * NW + warp) * EACH + place
            seen = (place >= start) & (place < position)
            scores = gl.where(seen, scores, float("-inf"))
            above = gl.maximum(gl.max(scores, axis=2), highest)
            shift = gl.where(above == float("-inf"), 0.0, above)
            share = gl.exp(scores - shift[:, :, None])
            fade = gl.exp(highest - shift)
            total = total * fade + gl.sum(share, axis=2)
            mixed = mixed * fade[:, :, None]
            share = gl.convert_layout(share.to(gl.float16), gl.DotOperandLayout(0, MMA, 2))
            mixed = mma_v2(share, v, mixed)
            highest = above

        # The warps' shares, and on split 0 the new position's, become one.
        new_score = gl.where(split == 0, new_score, float("-inf"))
        top = gl.maximum(gl.max(highest, axis=0), new_score)
        new_share = gl.exp(new_score - top)
        fade = gl.exp(highest - top[None, :])
        whole = gl.sum(total * fade, axis=0) + new_share
        head = gl.arange(0, 16, layout=BY_HEAD)
        divisor = gl.where(head < SHARED, 1.0 / whole, 0.0)  # no rows that only fill up
        # The order of dimensions that ``value_layout`` led to.
        column = gl.arange(0, WIDTH, layout=along(2, 3, MMA))[None, None, :]
        dim = (column // (8 * RUN) * 8 + column % 8) * RUN + column % (8 * RUN) // 8
        warp = gl.arange(0, NW, layout=along(0, 3, MMA))[:, None, None]
        new_v = gl.load(
            qkv + (HEADS + KV_HEADS + kv) * D + dim, mask=(warp == 0) & (dim < D), other=0.0
        )
        mixed = mixed * (fade * divisor[None, :])[:, :, None]
        mixed = mixed + (new_share * divisor)[None, :, None] * new_v
        mixed = gl.sum(gl.reshape(mixed, [NW, 16 // GROUP, GROUP, WIDTH]), axis=1)
        mixed = gl.sum(mixed, axis=0)
        mixed = gl.permute(gl.reshape(mixed, [GROUP, WIDTH // (8 * RUN), RUN, 8]), [0, 1, 3, 2])
        JOINED: gl.constexpr = join_layout(NW)
        RESULT: gl.constexpr = gl.SliceLayout(0, JOINED)
        RUNS: gl.constexpr = GROUP * WIDTH // 16
        result = gl.convert_layout(gl.reshape(mixed, [RUNS, 16]), RESULT)
        run = gl.arange(0, RUNS, layout=gl.SliceLayout(1, RESULT))
        of_head = run // (WIDTH // 16)
        of_dim = run % (WIDTH // 16)
        meant = (of_head < SHARED) & (of_dim * 16 < D)
        place = (kv * SHARED + of_head) * (D // 16) + of_dim
        if split == 0:
            cache_new(
                qkv, page, position, kv, cos, sin, k_norm, eps, keys, values, HEADS, KV_HEADS, D,
                ROTATED, WIDTH, NORM, NW,
            )  # fmt: skip
        if used == 1:
            emit(result, place, meant, y, yf, HEADS * D, INTS, FLOATS, JOINED)
        else:
            state = states + ((kv * SHARED + head) * SPLITS + split) * 2
            gl.store(state, top, mask=head < SHARED)
            gl.store(state + 1, whole, mask=head < SHARED)
            line = (kv * SHARED + of_head) * SPLITS + split
            element = gl.arange(0, 16, layout=gl.SliceLayout(0, RESULT))[None, :]
            at = line[:, None] * D + of_dim[:, None] * 16 + element
            gl.store(parts + at, result, mask=meant[:, None])
            barrier()
            ticket = gl.atomic_add(tickets + kv, 1, sem="acq_rel", scope="gpu")
            if ticket == used - 1:
                gl.store(tickets + kv, 0)
                result = put_together(
                    parts, states, kv * SHARED, used, D, SHARED, RUNS, WIDTH, JOINED
                )
                emit(result, place, meant, y, yf, HEADS * D, INTS, FLOATS, JOINED)


@gluon.jit
def cache_new(
    qkv, page, position, kv, cos, sin, k_norm, eps, keys, values,
    HEADS: gl.constexpr, KV_HEADS: gl.constexpr, D: gl.constexpr, ROTATED: gl.constexpr,
    WIDTH: gl.constexpr, NORM: gl.constexpr, NW: gl.constexpr,
):  # fmt: skip
    """Write the new token's key and value into its page."""
    LAYOUT: gl.constexpr = gl.BlockedLayout([1, 1], [1, 32], [1, NW], [1, 0])
    one = gl.arange(0, 1, layout=gl.SliceLayout(1, LAYOUT))[:, None]
    dim = gl.arange(0, WIDTH, layout=gl.SliceLayout(0, LAYOUT))[None, :]
    inside = (one == 0) & (dim < D)
    line = (page * KV_HEADS + kv) * PAGE + position % PAGE + one
    k = turned(
        qkv + (HEADS + kv) * D, one, inside, dim, k_norm, eps, cos, sin, 0, D, ROTATED, NORM, 1,
        False,
    )  # fmt: skip
    v = gl.load(qkv + (HEADS + KV_HEADS + kv) * D + one * D + dim, mask=inside, other=0.0)
    cache(k, keys, keys, line, dim, inside, 1, D, WIDTH, False)
    cache(v, values, values, line, dim, inside, 1, D, WIDTH, False)


@gluon.jit
def emit(v, run, inside, y, yf, N: gl.constexpr, INTS: gl.constexpr, FLOATS: gl.constexpr,
         LAYOUT: gl.constexpr):  # fmt: skip
    """Write runs of 16 elements [runs, 16] of a vector; see ``one_row.emit``."""
    element = gl.arange(0, 16, layout=gl.SliceLayout(0, gl.SliceLayout(0, LAYOUT)))[None, :]
    if INTS:
        G: gl.constexpr = (N + 1023) // 1024 * 32
        most = gl.max(gl.abs(v), axis=1)
        q = rounded(v * per_step(most)[:, None])
        upper = (q + 64) >> 7
        group = run // 2
        half = run % 2
        order = (half * (16 * G) + group * 16)[:, None] + (element % 4) * 4 + element // 4
        octets = y.to(gl.pointer_type(gl.int8)) + order
        gl.store(octets, upper.to(gl.int8), mask=inside[:, None])
        gl.store(octets + 32 * G, (q - (upper << 7)).to(gl.int8), mask=inside[:, None])
        halves = (y + 16 * G).to(gl.pointer_type(gl.float32))
        gl.store(halves + half * G + group, most / STEPS, mask=inside)
        total = gl.sum(q, axis=1).to(gl.float32)
        gl.store(halves + (2 + half) * G + group, most / STEPS * total, mask=inside)
    if FLOATS:
        HALF: gl.constexpr = (N + 255) // 256 * 128
        place = (element % 2) * HALF + run[:, None] * 8 + element // 2
        gl.store(yf + place, v, mask=inside[:, None])


@gluon.jit
def put_together(
    parts, states, heads, used, D: gl.constexpr, SHARED: gl.constexpr, RUNS: gl.constexpr,
    WIDTH: gl.constexpr, JOINED: gl.constexpr,
):  # fmt: skip
    """[runs, 16]: the splits' results weighed by their shares of the softmax."""
    FLAT: gl.constexpr = gl.SliceLayout(2, JOINED)
    split = gl.arange(0, SPLITS, layout=gl.SliceLayout(1, FLAT))[:, None]
    run = gl.arange(0, RUNS, layout=gl.SliceLayout(0, FLAT))[None, :]
    element = gl.arange(0, 16, layout=gl.SliceLayout(0, gl.SliceLayout(1, JOINED)))[None, :]
    of_head = run // (WIDTH // 16)
    of_dim = run % (WIDTH // 16)
    meant = (split < used) & (of_head < SHARED) & (of_dim * 16 < D)
    line = (heads + of_head) * SPLITS + split
    highest = gl.load(states + line * 2, mask=meant, other=float("-inf"))
    total = gl.load(states + line * 2 + 1, mask=meant, other=0.0)
    at = (line * D + of_dim * 16)[:, :, None] + element[:, None, :]
    mixed = gl.load(parts + at, mask=meant[:, :, None], other=0.0)
    top = gl.max(highest, axis=0)
    weight = gl.exp(highest - gl.where(top == float("-inf"), 0.0, top)[None, :]) * total
    whole = gl.sum(weight, axis=0)
    whole = gl.where(whole > 0.0, whole, 1.0)
    weight = weight / whole[None, :]
    return gl.sum(weight[:, :, None] * mixed, axis=0)
