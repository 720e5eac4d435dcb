"""Attention of rows that have one new token each, over keys and values in pages.

A program serves the query heads that share one key-value head, for one row and one **split** of
its positions. What was cached before this step is fetched before ``wait``; then come the new
token's query and key, normed and turned by their position, the products, and the split's share of
the softmax. Split 0 also writes the new key and value into the cache. The last program of a row
and head to finish puts the splits together, in their order.

How many splits a row has, and where they begin, depends on its own length only: its result is the
same whatever runs beside it.
"""

from __future__ import annotations

from triton.experimental import gluon
from triton.experimental.gluon import language as gl

from lhama.backends.pytorch.cuda.kernels.asm import let_next_start, rounded, wait

PAGE = gl.constexpr(64)
"""Positions of a page."""
TILE = gl.constexpr(32)
"""Positions looked at together."""
SPLITS = gl.constexpr(16)
"""At most; a power of two."""


@gluon.constexpr_function
def tile_layout(GROUP, WIDTH, NW):
    """[heads, positions, dimensions]: a lane has 8 neighbouring dimensions of every head."""
    lanes = WIDTH // 8
    return gl.BlockedLayout([GROUP, 1, 8], [1, 32 // lanes, lanes], [1, NW, 1], [2, 1, 0])


@gluon.constexpr_function
def join_layout(NW):
    """[splits, runs of 16 dimensions, 16]."""
    return gl.BlockedLayout([16, 1, 4], [1, 8, 4], [1, NW, 1], [2, 1, 0])


@gluon.jit
def turned(
    x, head, inside, dim, norm, eps, cos, sin,
    D: gl.constexpr, ROTATED: gl.constexpr, NORM: gl.constexpr,
):  # fmt: skip
    """float32 [heads, dims] of the heads at ``x``, normed and turned by their position.

    ``cos`` and ``sin`` point at the position's row. Dimension i turns with i + ROTATED / 2.
    """
    HALF: gl.constexpr = ROTATED // 2
    lower = dim < HALF
    partner = gl.where(lower, dim + HALF, gl.where(dim < ROTATED, dim - HALF, dim))
    own = gl.load(x + head * D + dim, mask=inside, other=0.0)
    other = gl.load(x + head * D + partner, mask=inside, other=0.0)
    if NORM:
        factor = 1.0 / gl.sqrt(gl.sum(own * own, axis=1) / D + eps)
        own = own * factor[:, None] * gl.load(norm + dim, mask=dim < D, other=0.0)
        other = other * factor[:, None] * gl.load(norm + partner, mask=dim < D, other=0.0)
    turns = dim < ROTATED
    angle = gl.where(lower, dim, dim - HALF)
    c = gl.load(cos + angle, mask=turns, other=1.0)
    s = gl.load(sin + angle, mask=turns, other=0.0)
    return own * c + gl.where(lower, -other, other) * s


@gluon.jit
def emit(v, run, inside, row, y, yf, y16, N: gl.constexpr, INTS: gl.constexpr,
         FLOATS: gl.constexpr, HALVES: gl.constexpr, LAYOUT: gl.constexpr):  # fmt: skip
    """Write runs of 16 elements [runs, 16] of a row's vector; see ``one_row.emit``."""
    element = gl.arange(0, 16, layout=gl.SliceLayout(0, gl.SliceLayout(0, LAYOUT)))[None, :]
    if INTS:
        G: gl.constexpr = (N + 1023) // 1024 * 32
        most = gl.max(gl.abs(v), axis=1)
        q = rounded(v * gl.where(most > 0.0, 127.0 / most, 0.0)[:, None])
        group = run // 2
        half = run % 2
        octets = y.to(gl.pointer_type(gl.int8))
        place = (half * (16 * G) + group * 16)[:, None] + (element % 4) * 4 + element // 4
        gl.store(octets + place, q.to(gl.int8), mask=inside[:, None])
        halves = (y + 8 * G).to(gl.pointer_type(gl.float32))
        gl.store(halves + half * G + group, most / 127.0, mask=inside)
        total = gl.sum(q, axis=1).to(gl.float32)
        gl.store(halves + (2 + half) * G + group, most / 127.0 * total, mask=inside)
    if FLOATS:
        HALF: gl.constexpr = (N + 255) // 256 * 128
        place = (element % 2) * HALF + run[:, None] * 8 + element // 2
        gl.store(yf + place, v, mask=inside[:, None])
    if HALVES:
        place = row * N + run[:, None] * 16 + element
        gl.store(y16 + place, v.to(y16.dtype.element_ty), mask=inside[:, None])


@gluon.jit
def load_tile(codes, scales, page, kv, at, dim, inside, KV_HEADS: gl.constexpr,
              D: gl.constexpr, KV8: gl.constexpr):  # fmt: skip
    """[positions, dims] of a page, as they lie in the cache; with their scales if quantised."""
    line = (page * KV_HEADS + kv) * PAGE + at % PAGE
    within = inside & (dim < D)
    raw = gl.load(codes + line * D + dim, mask=within, other=0)
    if KV8:
        return raw, gl.load(scales + line * (D // 32) + dim // 32, mask=within, other=0.0)
    else:
        return raw, raw


@gluon.jit
def as_float(tile, KV8: gl.constexpr):
    raw, scale = tile
    if KV8:
        return raw.to(gl.float32) * scale.to(gl.float32)
    else:
        return raw.to(gl.float32)


@gluon.jit
def cache(
    x, codes, scales, line, dim, inside, HEADS: gl.constexpr, D: gl.constexpr,
    WIDTH: gl.constexpr, KV8: gl.constexpr,
):  # fmt: skip
    """Write ``x`` [heads, dims] to the cache's lines [heads, 1]; returns what will be read back."""
    if KV8:
        parts = gl.reshape(x, [HEADS * WIDTH // 32, 32])
        most = gl.max(gl.abs(parts), axis=1)[:, None] + gl.zeros_like(parts)
        most = gl.convert_layout(gl.reshape(most, [HEADS, WIDTH]), x.type.layout)
        q = rounded(x * gl.where(most > 0.0, 127.0 / most, 0.0))
        scale = (most / 127.0).to(gl.float16)
        gl.store(codes + line * D + dim, q.to(gl.int8), mask=inside)
        gl.store(scales + line * (D // 32) + dim // 32, scale, mask=inside & (dim % 32 == 0))
        return q.to(gl.float32) * scale.to(gl.float32)
    else:
        stored = x.to(codes.dtype.element_ty)
        gl.store(codes + line * D + dim, stored, mask=inside)
        return stored.to(gl.float32)


@gluon.jit(do_not_specialize_on_alignment=["slots", "positions"])
def attend(
    qkv, cos, sin, q_norm, k_norm, eps, keys, values, key_scales, value_scales, tables, slots,
    positions, parts, states, tickets, y, yf, y16,
    HEADS: gl.constexpr, KV_HEADS: gl.constexpr, D: gl.constexpr, ROTATED: gl.constexpr,
    GROUP: gl.constexpr, WIDTH: gl.constexpr, SCALE: gl.constexpr, NORM: gl.constexpr,
    WINDOW: gl.constexpr, SOFTCAP: gl.constexpr, PAGES: gl.constexpr, KV8: gl.constexpr,
    INTS: gl.constexpr, FLOATS: gl.constexpr, HALVES: gl.constexpr, NW: gl.constexpr,
    PDL: gl.constexpr,
):  # fmt: skip
    """Grid: rows, key-value heads, splits. ``qkv`` [rows, (HEADS + 2 KV_HEADS) · D] float32.

    ``GROUP`` and ``WIDTH``: powers of two that cover the heads of a group and ``D``. ``parts``
    [rows, HEADS, SPLITS, D] and ``states`` [rows, HEADS, SPLITS, 2] are scratch, ``tickets``
    [rows, KV_HEADS] are zero before and after.
    """
    LAYOUT: gl.constexpr = tile_layout(GROUP, WIDTH, NW)
    BY_DIM: gl.constexpr = gl.SliceLayout(1, LAYOUT)
    BY_PLACE: gl.constexpr = gl.SliceLayout(2, LAYOUT)
    PAGED: gl.constexpr = gl.SliceLayout(0, LAYOUT)
    SHARED: gl.constexpr = HEADS // KV_HEADS
    HALF: gl.constexpr = ROTATED // 2
    row, kv, split = gl.program_id(0), gl.program_id(1), gl.program_id(2)
    let_next_start(PDL)
    slot = gl.load(slots + row)
    position = gl.load(positions + row)
    start = position * 0
    if WINDOW > 0:
        start = gl.maximum(position - (WINDOW - 1), 0)
    first = start // TILE
    tiles = (position + TILE - 1) // TILE - first  # none at position 0
    tiles = gl.where(position > start, tiles, 0)
    each = gl.maximum((tiles + SPLITS - 1) // SPLITS, 1)
    used = gl.maximum((tiles + each - 1) // each, 1)
    if split < used:
        token = gl.arange(0, TILE, layout=gl.SliceLayout(1, PAGED))[:, None]
        paged_dim = gl.arange(0, WIDTH, layout=gl.SliceLayout(0, PAGED))[None, :]
        begin = first + split * each
        end = gl.minimum(begin + each, first + tiles)
        table = tables + slot * PAGES
        page = gl.load(table + begin * TILE // PAGE)
        at = begin * TILE + token
        inside = (at >= start) & (at < position)
        k = load_tile(keys, key_scales, page, kv, at, paged_dim, inside, KV_HEADS, D, KV8)
        v = load_tile(values, value_scales, page, kv, at, paged_dim, inside, KV_HEADS, D, KV8)
        wait(PDL)

        head = gl.arange(0, GROUP, layout=gl.SliceLayout(1, BY_DIM))[:, None]
        dim = gl.arange(0, WIDTH, layout=gl.SliceLayout(0, BY_DIM))[None, :]
        new = qkv + row * ((HEADS + 2 * KV_HEADS) * D)
        q_inside = (head < SHARED) & (dim < D)
        row_cos = cos + position * HALF
        row_sin = sin + position * HALF
        q = turned(
            new + kv * (SHARED * D), head, q_inside, dim, q_norm, eps, row_cos, row_sin,
            D, ROTATED, NORM,
        ) * SCALE  # fmt: skip
        highest = gl.full([GROUP], float("-inf"), gl.float32, gl.SliceLayout(1, BY_DIM))
        total = gl.full([GROUP], 0.0, gl.float32, gl.SliceLayout(1, BY_DIM))
        mixed = gl.full([GROUP, WIDTH], 0.0, gl.float32, BY_DIM)
        if split == 0:
            one = gl.arange(0, 1, layout=gl.SliceLayout(1, BY_DIM))[:, None]
            here = (one == 0) & (dim < D)
            current = gl.load(table + position // PAGE)
            line = (current * KV_HEADS + kv) * PAGE + position % PAGE + one
            new_k = turned(
                new + (HEADS + kv) * D, one, here, dim, k_norm, eps, row_cos, row_sin,
                D, ROTATED, NORM,
            )  # fmt: skip
            new_v = gl.load(new + (HEADS + KV_HEADS + kv) * D + one * D + dim, mask=here, other=0.0)
            new_k = cache(new_k, keys, key_scales, line, dim, here, 1, D, WIDTH, KV8)
            new_v = cache(new_v, values, value_scales, line, dim, here, 1, D, WIDTH, KV8)
            highest = capped(gl.sum(q * new_k, axis=1), SOFTCAP)
            total = total + 1.0
            mixed = mixed + new_v

        for tile in range(begin, end):
            # The next tile is on its way while this one is used.
            page = gl.load(table + gl.minimum(tile + 1, end - 1) * TILE // PAGE)
            at = (tile + 1) * TILE + token
            inside = (at < position) & (tile + 1 < end)
            next_k = load_tile(keys, key_scales, page, kv, at, paged_dim, inside, KV_HEADS, D, KV8)
            next_v = load_tile(
                values, value_scales, page, kv, at, paged_dim, inside, KV_HEADS, D, KV8
            )
            scores = gl.sum(q[:, None, :] * as_float(k, KV8)[None, :, :], axis=2)
            scores = capped(scores, SOFTCAP)
            place = tile * TILE + gl.arange(0, TILE, layout=gl.SliceLayout(0, BY_PLACE))
            seen = (place >= start) & (place < position)
            scores = gl.where(seen[None, :], scores, float("-inf"))
            above = gl.convert_layout(gl.max(scores, axis=1), gl.SliceLayout(1, BY_DIM))
            above = gl.maximum(above, highest)
            shift = gl.convert_layout(above, gl.SliceLayout(1, BY_PLACE))
            share = gl.exp(scores - shift[:, None])
            fade = gl.exp(highest - above)
            sums = gl.convert_layout(gl.sum(share, axis=1), gl.SliceLayout(1, BY_DIM))
            total = total * fade + sums
            products = gl.sum(share[:, :, None] * as_float(v, KV8)[None, :, :], axis=1)
            mixed = mixed * fade[:, None] + products
            highest = above
            k = next_k
            v = next_v

        JOINED: gl.constexpr = join_layout(NW)
        RUNS: gl.constexpr = GROUP * WIDTH // 16
        run = gl.arange(0, RUNS, layout=gl.SliceLayout(1, gl.SliceLayout(0, JOINED)))
        of_head = run // (WIDTH // 16)
        of_dim = run % (WIDTH // 16)
        meant = (of_head < SHARED) & (of_dim * 16 < D)
        place = (kv * SHARED + of_head) * (D // 16) + of_dim
        if used == 1:
            result = gl.reshape(mixed / total[:, None], [RUNS, 16])
            result = gl.convert_layout(result, gl.SliceLayout(0, JOINED))
            emit(result, place, meant, row, y, yf, y16, HEADS * D, INTS, FLOATS, HALVES, JOINED)
        else:
            heads = row * HEADS + kv * SHARED
            lane_head = gl.arange(0, GROUP, layout=gl.SliceLayout(1, BY_DIM))
            state = states + ((heads + lane_head) * SPLITS + split) * 2
            gl.store(state, highest, mask=lane_head < SHARED)
            gl.store(state + 1, total, mask=lane_head < SHARED)
            part = ((heads + head) * SPLITS + split) * D + dim
            gl.store(parts + part, mixed, mask=q_inside)
            gl.thread_barrier()
            ticket = gl.atomic_add(tickets + row * KV_HEADS + kv, 1, sem="acq_rel", scope="gpu")
            if ticket == used - 1:
                gl.store(tickets + row * KV_HEADS + kv, 0)
                result = put_together(parts, states, heads, used, D, SHARED, RUNS, WIDTH, JOINED)
                emit(result, place, meant, row, y, yf, y16, HEADS * D, INTS, FLOATS, HALVES, JOINED)


@gluon.jit
def capped(scores, SOFTCAP: gl.constexpr):
    if SOFTCAP > 0.0:
        return SOFTCAP * (1.0 - 2.0 / (1.0 + gl.exp(scores * (2.0 / SOFTCAP))))
    else:
        return scores


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
    weight = gl.exp(highest - gl.where(top == float("-inf"), 0.0, top)[None, :])
    whole = gl.sum(weight * total, axis=0)
    whole = gl.where(whole > 0.0, whole, 1.0)
    weight = weight / whole[None, :]
    return gl.sum(weight[:, :, None] * mixed, axis=0)


@gluon.jit(do_not_specialize_on_alignment=["slots", "positions"])
def spread(
    qkv, cos, sin, q_norm, k_norm, eps, keys, values, key_scales, value_scales, tables, slots,
    positions, q_out,
    HEADS: gl.constexpr, KV_HEADS: gl.constexpr, D: gl.constexpr, ROTATED: gl.constexpr,
    HEADS_UP: gl.constexpr, KV_UP: gl.constexpr, WIDTH: gl.constexpr, SCALE: gl.constexpr,
    NORM: gl.constexpr, PAGES: gl.constexpr, KV8: gl.constexpr, NW: gl.constexpr,
):  # fmt: skip
    """Tokens of prompts, one a program: keys and values go to the cache, queries to ``q_out``.

    ``q_out`` [tokens, HEADS · D] is turned and scaled. ``HEADS_UP`` and ``KV_UP`` are powers of
    two that cover the numbers of heads.
    """
    LANES: gl.constexpr = WIDTH // 8
    LAYOUT: gl.constexpr = gl.BlockedLayout([1, 8], [32 // LANES, LANES], [NW, 1], [1, 0])
    HALF: gl.constexpr = ROTATED // 2
    token = gl.program_id(0)
    position = gl.load(positions + token)
    page = gl.load(tables + gl.load(slots + token) * PAGES + position // PAGE)
    dim = gl.arange(0, WIDTH, layout=gl.SliceLayout(0, LAYOUT))[None, :]
    new = qkv + token * ((HEADS + 2 * KV_HEADS) * D)
    cos = cos + position * HALF
    sin = sin + position * HALF
    head = gl.arange(0, HEADS_UP, layout=gl.SliceLayout(1, LAYOUT))[:, None]
    inside = (head < HEADS) & (dim < D)
    q = turned(new, head, inside, dim, q_norm, eps, cos, sin, D, ROTATED, NORM) * SCALE
    at = token * (HEADS * D) + head * D + dim
    gl.store(q_out + at, q.to(q_out.dtype.element_ty), mask=inside)
    head = gl.arange(0, KV_UP, layout=gl.SliceLayout(1, LAYOUT))[:, None]
    inside = (head < KV_HEADS) & (dim < D)
    line = (page * KV_HEADS + head) * PAGE + position % PAGE
    k = turned(new + HEADS * D, head, inside, dim, k_norm, eps, cos, sin, D, ROTATED, NORM)
    v = gl.load(new + (HEADS + KV_HEADS) * D + head * D + dim, mask=inside, other=0.0)
    cache(k, keys, key_scales, line, dim, inside, KV_UP, D, WIDTH, KV8)
    cache(v, values, value_scales, line, dim, inside, KV_UP, D, WIDTH, KV8)
