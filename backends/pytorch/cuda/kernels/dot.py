"""A few rows of a matrix times one vector: the inner loop of everything that has one row.

A program takes ``R`` rows for each of its ``NW`` warps. A lane owns one group of 32 weights of each
of its rows, so a tile is [R · NW rows, 32 lanes, 4 words]: every load is 16 bytes wide, and no
number crosses lanes before the last sum. Planes are those of ``formats.py``. A vector of G groups
has 20 words for each, all in planes: upper bytes of the groups' first halves (4), of their second
halves (4), lower bytes likewise (8), float32 scales of the halves (2) and their sums (2); bytes in
the order of the weights' codes. For float matrices it has planes of its even and its odd elements.
"""

from __future__ import annotations

from triton.experimental import gluon
from triton.experimental.gluon import language as gl

from lhama.backends.pytorch.cuda.kernels.asm import dot4_signed, dot4_unsigned

Q4_0 = gl.constexpr(0)
Q4_1 = gl.constexpr(1)
Q5_0 = gl.constexpr(2)
Q5_1 = gl.constexpr(3)
Q8_0 = gl.constexpr(4)
Q4_K = gl.constexpr(5)
Q5_K = gl.constexpr(6)
Q6_K = gl.constexpr(7)
BF16 = gl.constexpr(8)
F16 = gl.constexpr(9)
F32 = gl.constexpr(10)


@gluon.constexpr_function
def tile_layout(R, NW):
    return gl.BlockedLayout([R, 1, 4], [1, 32, 1], [NW, 1, 1], [2, 1, 0])


@gluon.constexpr_function
def is_quantised(FORMAT):
    return FORMAT < 8


@gluon.constexpr_function
def code_words(FORMAT):
    """Words of codes a group has, higher bits not counted."""
    return 8 if FORMAT == 4 else 4


@gluon.constexpr_function
def high_words(FORMAT):
    return 1 if FORMAT in (2, 3, 6) else 2 if FORMAT == 7 else 0


@gluon.constexpr_function
def tiles(FORMAT, K):
    """Tiles in a row of ``K`` weights."""
    per_tile = 1024 if FORMAT < 8 else 128 if FORMAT == 10 else 256
    return (K + per_tile - 1) // per_tile


@gluon.jit
def pick(pointer, offsets, inside, MASKED: gl.constexpr):
    """Weights are read once: they must not push anything out of the cache."""
    if MASKED:
        return gl.load(pointer + offsets, mask=inside, other=0, eviction_policy="evict_first")
    else:
        return gl.load(pointer + offsets, eviction_policy="evict_first")


@gluon.jit
def load_tile(
    w, first, TILE: gl.constexpr, FORMAT: gl.constexpr, N: gl.constexpr, K: gl.constexpr,
    R: gl.constexpr, NW: gl.constexpr,
):  # fmt: skip
    """Raw words of a tile: codes (B's too), high bits (B's too), scales, super-scales."""
    LAYOUT: gl.constexpr = tile_layout(R, NW)
    PAIRS: gl.constexpr = gl.SliceLayout(2, LAYOUT)
    row = first + gl.arange(0, R * NW, layout=gl.SliceLayout(1, PAIRS))
    lane = TILE * 32 + gl.arange(0, 32, layout=gl.SliceLayout(0, PAIRS))
    word = gl.arange(0, 4, layout=gl.SliceLayout(0, gl.SliceLayout(1, LAYOUT)))
    if is_quantised(FORMAT):
        G: gl.constexpr = K // 32
        MASKED: gl.constexpr = TILE * 32 + 32 > G
        at = row[:, None] * G + lane[None, :]
        inside = (lane < G)[None, :]
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
        eighth = row[:, None] * (G // 8) + (lane // 8)[None, :]
        if FORMAT == Q4_K or FORMAT == Q5_K:
            shared = pick(w + SUPERS, eighth, inside, MASKED)
        elif FORMAT == Q6_K:
            halves = (w + SUPERS).to(gl.pointer_type(gl.int16))
            shared = pick(halves, eighth, inside, MASKED).to(gl.int32)
        return codes, codes_b, high, high_b, scale, shared
    else:
        W: gl.constexpr = K if FORMAT == F32 else K // 2
        MASKED_WORDS: gl.constexpr = TILE * 128 + 128 > W
        column = lane[None, :, None] * 4 + word[None, None, :]
        words = pick(w, row[:, None, None] * W + column, column < W, MASKED_WORDS)
        return words, words, words, words, words, words


@gluon.jit
def half_float(bits):
    """float32 of the float16 in the low half of int32."""
    return (bits & 0xFFFF).to(gl.int16).to(gl.float16, bitcast=True).to(gl.float32)


@gluon.jit
def scale_and_minimum(scale, shared, FORMAT: gl.constexpr):
    """float32 of a group: what codes are multiplied with and what is taken off; not for Q6_K."""
    if FORMAT == Q4_1 or FORMAT == Q5_1:
        return half_float(scale), -half_float(scale >> 16)
    elif FORMAT == Q4_K or FORMAT == Q5_K:
        d = half_float(shared) * (scale & 0xFF).to(gl.float32)
        return d, half_float(shared >> 16) * ((scale >> 8) & 0xFF).to(gl.float32)
    elif FORMAT == Q4_0:
        d = half_float(scale)
        return d, d * 8.0
    elif FORMAT == Q5_0:
        d = half_float(scale)
        return d, d * 16.0
    else:
        d = half_float(scale)
        return d, d * 0.0


@gluon.jit
def half_scales(scale, shared):
    """Q6_K: float32 scales of a group's two halves."""
    d = half_float(shared)
    low = ((scale << 24) >> 24).to(gl.float32)
    high = ((scale << 16) >> 24).to(gl.float32)
    return d * low, d * high


@gluon.jit
def to_bits_4_and_5(high, word):
    """Bits ``2 · word`` and the next of every byte; ``word`` is known at compile time."""
    return gl.where(word < 2, high << ((4 - 2 * word) & 31), high >> ((2 * word - 4) & 31))


@gluon.jit
def bytes_of(codes, codes_b, high, high_b, word, FORMAT: gl.constexpr):
    """Codes as bytes: words of A and of B. ``high`` is broadcast to the shape of ``codes``."""
    if FORMAT == Q8_0:
        return codes, codes_b
    else:
        low = codes & 0x0F0F0F0F
        top = (codes >> 4) & 0x0F0F0F0F
        if high_words(FORMAT) == 1:
            low = low | ((high << (4 - word)) & 0x10101010)
            top = top | ((high >> word) & 0x10101010)
        elif high_words(FORMAT) == 2:
            low = low | (to_bits_4_and_5(high, word) & 0x30303030)
            top = top | (to_bits_4_and_5(high_b, word) & 0x30303030)
        return low, top


@gluon.jit
def dot(codes, upper, lower, FORMAT: gl.constexpr):
    """int32 sums over a half of a group: codes times (128 · upper + lower)."""
    if FORMAT == Q8_0:
        above = dot4_signed(codes, upper)
        below = dot4_signed(codes, lower)
    else:
        above = dot4_unsigned(codes, upper)
        below = dot4_unsigned(codes, lower)
    return (gl.sum(above, axis=2) << 7) + gl.sum(below, axis=2)


@gluon.jit
def add_tile(
    sums, tile, x, xf, TILE: gl.constexpr, FORMAT: gl.constexpr, K: gl.constexpr,
    R: gl.constexpr, NW: gl.constexpr,
):  # fmt: skip
    """``sums`` [rows, 32 lanes] plus a tile's products with its part of the vector."""
    LAYOUT: gl.constexpr = tile_layout(R, NW)
    VECTOR: gl.constexpr = gl.SliceLayout(0, LAYOUT)
    codes, codes_b, high, high_b, scale, shared = tile
    lane = TILE * 32 + gl.arange(0, 32, layout=gl.SliceLayout(1, VECTOR))
    word = gl.arange(0, 4, layout=gl.SliceLayout(0, VECTOR))
    at = lane[:, None] * 4 + word[None, :]
    if is_quantised(FORMAT):
        # Vectors are padded to whole tiles with zeros.
        G: gl.constexpr = (K + 1023) // 1024 * 32
        group = TILE * 32 + gl.arange(0, 32, layout=gl.SliceLayout(0, gl.SliceLayout(2, LAYOUT)))
        upper_a = gl.load(x + at)[None, :, :]
        upper_b = gl.load(x + 4 * G + at)[None, :, :]
        lower_a = gl.load(x + 8 * G + at)[None, :, :]
        lower_b = gl.load(x + 12 * G + at)[None, :, :]
        halves = (x + 16 * G).to(gl.pointer_type(gl.float32))
        scale_a = gl.load(halves + group)[None, :]
        scale_b = gl.load(halves + G + group)[None, :]
        sum_a = gl.load(halves + 2 * G + group)[None, :]
        sum_b = gl.load(halves + 3 * G + group)[None, :]
        low, top = bytes_of(
            codes, codes_b, high[:, :, None], high_b[:, :, None], word[None, :][None, :, :], FORMAT
        )
        dot_a = dot(low, upper_a, lower_a, FORMAT).to(gl.float32) * scale_a
        dot_b = dot(top, upper_b, lower_b, FORMAT).to(gl.float32) * scale_b
        if FORMAT == Q6_K:
            first, second = half_scales(scale, shared)
            return sums + first * (dot_a - 32.0 * sum_a) + second * (dot_b - 32.0 * sum_b)
        else:
            factor, minimum = scale_and_minimum(scale, shared, FORMAT)
            sums = sums + factor * (dot_a + dot_b)
            if FORMAT != Q8_0:
                sums = sums - minimum * (sum_a + sum_b)
            return sums
    else:
        HALF: gl.constexpr = (K + 255) // 256 * 128
        if FORMAT == F32:
            even = gl.load(xf + (at % 2) * HALF + at // 2)
            products = codes.to(gl.float32, bitcast=True) * even[None, :, :]
        else:
            even = gl.load(xf + at)
            odd = gl.load(xf + HALF + at)
            if FORMAT == BF16:
                first = (codes << 16).to(gl.float32, bitcast=True)
                second = (codes & -65536).to(gl.float32, bitcast=True)
            else:
                first = half_float(codes)
                second = half_float(codes >> 16)
            products = first * even[None, :, :] + second * odd[None, :, :]
        return sums + gl.sum(products, axis=2)


@gluon.jit
def load_ahead(
    w, first, AHEAD: gl.constexpr, FORMAT: gl.constexpr, N: gl.constexpr, K: gl.constexpr,
    R: gl.constexpr, NW: gl.constexpr,
):  # fmt: skip
    """The first ``AHEAD`` tiles of some rows: more than registers hold would be slower."""
    ahead = ()
    for tile in gl.static_range(AHEAD):
        if tile < tiles(FORMAT, K):
            ahead = ahead + (load_tile(w, first, tile, FORMAT, N, K, R, NW),)
    return ahead


@gluon.jit
def dot_rows(
    ahead, w, first, x, xf, AHEAD: gl.constexpr, FORMAT: gl.constexpr, N: gl.constexpr,
    K: gl.constexpr, R: gl.constexpr, NW: gl.constexpr,
):  # fmt: skip
    """float32 [R · NW]: rows ``first`` … times the vector; ``ahead`` is loaded already."""
    PAIRS: gl.constexpr = gl.SliceLayout(2, tile_layout(R, NW))
    sums = gl.full([R * NW, 32], 0.0, gl.float32, PAIRS)
    for tile in gl.static_range(tiles(FORMAT, K)):
        if tile < AHEAD:
            sums = add_tile(sums, ahead[tile], x, xf, tile, FORMAT, K, R, NW)
        else:
            later = load_tile(w, first, tile, FORMAT, N, K, R, NW)
            sums = add_tile(sums, later, x, xf, tile, FORMAT, K, R, NW)
    return gl.sum(sums, axis=1)


@gluon.jit
def weight_at(w, row, column, FORMAT: gl.constexpr, N: gl.constexpr, K: gl.constexpr):
    """float32 weights at any places: for looking up rows, slow for anything else."""
    if is_quantised(FORMAT):
        G: gl.constexpr = K // 32
        group = row * G + column // 32
        half = column // 16 % 2
        byte = column // 4 % 4
        word = column % 4
        AFTER: gl.constexpr = N * G * code_words(FORMAT)
        SCALES: gl.constexpr = AFTER + N * G * high_words(FORMAT)
        if FORMAT == Q8_0:
            codes = gl.load(w + half * (N * G * 4) + group * 4 + word)
            code = (codes << (24 - 8 * byte)) >> 24
        else:
            codes = gl.load(w + group * 4 + word)
            code = (codes >> (8 * byte + 4 * half)) & 15
            if high_words(FORMAT) == 1:
                high = gl.load(w + AFTER + group)
                code = code | (((high >> (8 * byte + 4 * half + word)) & 1) << 4)
            elif high_words(FORMAT) == 2:
                high = gl.load(w + AFTER + half * (N * G) + group)
                code = code | (((high >> (8 * byte + 2 * word)) & 3) << 4)
        if FORMAT == Q4_1 or FORMAT == Q5_1:
            scale = gl.load(w + SCALES + group)
        else:
            scale = gl.load((w + SCALES).to(gl.pointer_type(gl.int16)) + group).to(gl.int32)
        shared = scale
        SUPERS: gl.constexpr = SCALES + N * G // 2
        if FORMAT == Q4_K or FORMAT == Q5_K:
            shared = gl.load(w + SUPERS + group // 8)
        elif FORMAT == Q6_K:
            halves = (w + SUPERS).to(gl.pointer_type(gl.int16))
            shared = gl.load(halves + group // 8).to(gl.int32)
        if FORMAT == Q6_K:
            first, second = half_scales(scale, shared)
            return gl.where(half == 0, first, second) * (code - 32).to(gl.float32)
        else:
            factor, minimum = scale_and_minimum(scale, shared, FORMAT)
            return factor * code.to(gl.float32) - minimum
    elif FORMAT == F32:
        return gl.load(w + row * K + column).to(gl.float32, bitcast=True)
    elif FORMAT == BF16:
        halves = w.to(gl.pointer_type(gl.bfloat16))
        return gl.load(halves + row * K + column).to(gl.float32)
    else:
        return gl.load(w.to(gl.pointer_type(gl.float16)) + row * K + column).to(gl.float32)
