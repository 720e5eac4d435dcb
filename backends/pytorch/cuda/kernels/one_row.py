"""One token's way through a layer, without attention: matrix times vector, and what lies around.

Kernels hand on two things. The residual stream ``h`` is plain float32. A **vector** is what the
next matrix is multiplied with: ``h`` times the norm's weights, in 15 bits with a scale for each 16
elements (or in float for float matrices), not yet divided by the root mean square. For that the
producers leave partial sums of squares, one for each program, and the consumer scales its results.
So norms, quantisation, residuals and activations cost no kernel of their own.

A program makes 16 outputs: half a group of the vector it writes.
"""

from __future__ import annotations

from triton.experimental import gluon
from triton.experimental.gluon import language as gl

from lhama.backends.pytorch.cuda.kernels.asm import let_next_start, rounded, wait
from lhama.backends.pytorch.cuda.kernels.dot import dot_rows, load_ahead, tile_layout, weight_at

OUTPUTS = gl.constexpr(16)
STEPS = gl.constexpr(127.0 * 128.0)
"""Of a vector's elements to either side of zero: what two bytes tell, 128 times the upper and the
lower one."""


@gluon.constexpr_function
def output_layout(R, NW):
    """Of the 16 outputs of a program."""
    return gl.SliceLayout(1, gl.SliceLayout(2, tile_layout(R, NW)))


@gluon.constexpr_function
def covering(COUNT):
    """The power of two, at least 32, that covers ``COUNT``."""
    size = 32
    while size < COUNT:
        size *= 2
    return size


@gluon.jit
def inverse_rms(squares, eps, K: gl.constexpr, NW: gl.constexpr):
    """1 / root mean square of ``K`` elements, from the partial sums of their squares."""
    COUNT: gl.constexpr = K // OUTPUTS
    SIZE: gl.constexpr = covering(COUNT)
    LAYOUT: gl.constexpr = gl.BlockedLayout([SIZE // 32], [32], [NW], [0])
    index = gl.arange(0, SIZE, layout=LAYOUT)
    parts = gl.load(squares + index, mask=index < COUNT, other=0.0)
    return 1.0 / gl.sqrt(gl.sum(parts, axis=0) / K + eps)


@gluon.jit
def per_step(most):
    """Steps to one, where ``most`` is the largest of those that share a scale. Nothing is told apart
    where its inverse would be infinite."""
    return gl.where(most > 1e-30, STEPS / most, 0.0)


@gluon.jit
def emit(v, place, y, yf, N: gl.constexpr, INTS: gl.constexpr, FLOATS: gl.constexpr,
         LAYOUT: gl.constexpr):  # fmt: skip
    """Write 16 elements, number ``place`` of a vector of ``N``."""
    element = gl.arange(0, OUTPUTS, layout=LAYOUT)
    if INTS:
        G: gl.constexpr = (N + 1023) // 1024 * 32
        most = gl.max(gl.abs(v), axis=0)
        q = rounded(v * per_step(most))
        upper = (q + 64) >> 7
        group = place // 2
        half = place % 2
        order = half * (16 * G) + group * 16 + (element % 4) * 4 + element // 4
        octets = y.to(gl.pointer_type(gl.int8)) + order
        gl.store(octets, upper.to(gl.int8))
        gl.store(octets + 32 * G, (q - (upper << 7)).to(gl.int8))
        halves = (y + 16 * G).to(gl.pointer_type(gl.float32))
        gl.store(halves + half * G + group, most / STEPS)
        total = gl.sum(q, axis=0).to(gl.float32)
        gl.store(halves + (2 + half) * G + group, most / STEPS * total)
    if FLOATS:
        HALF: gl.constexpr = (N + 255) // 256 * 128
        gl.store(yf + (element % 2) * HALF + place * 8 + element // 2, v)


@gluon.jit
def token_of(tokens, slots, last_token, row):
    """A row's token: given, or the one its slot sampled last."""
    token = gl.load(tokens + row)
    return gl.where(token < 0, gl.load(last_token + gl.load(slots + row)), token)


@gluon.jit(do_not_specialize_on_alignment=["tokens", "slots"])
def embed(
    w, tokens, slots, last_token, scale, h, norm, y, yf, y_squares,
    N: gl.constexpr, VOCAB: gl.constexpr, FORMAT: gl.constexpr, INTS: gl.constexpr,
    FLOATS: gl.constexpr,
):  # fmt: skip
    """h and the first vector, of one token. A step begins here: it waits for all before it."""
    LAYOUT: gl.constexpr = gl.BlockedLayout([1], [32], [1], [0])
    program = gl.program_id(0)
    column = program * OUTPUTS + gl.arange(0, OUTPUTS, layout=LAYOUT)
    token = token_of(tokens, slots, last_token, 0)
    v = weight_at(w, token, column, FORMAT, VOCAB, N) * scale
    gl.store(h + column, v)
    gl.store(y_squares + program, gl.sum(v * v, axis=0))
    emit(v * gl.load(norm + column), program, y, yf, N, INTS, FLOATS, LAYOUT)


@gluon.jit
def activated(gate, GELU: gl.constexpr):
    """SiLU, or GELU by its tanh formula."""
    if GELU:
        inner = 0.7978845608028654 * gate * (1.0 + 0.044715 * gate * gate)
        return gate / (1.0 + gl.exp(-2.0 * inner))
    else:
        return gate / (1.0 + gl.exp(-gate))


@gluon.jit
def project(
    w0, w1, x, xf, squares, eps, bias, y, y_squares,
    K: gl.constexpr, N0: gl.constexpr, N1: gl.constexpr, FORMAT0: gl.constexpr,
    FORMAT1: gl.constexpr, NORM: gl.constexpr, BIAS: gl.constexpr, SQUARES: gl.constexpr,
    AHEAD: gl.constexpr, R: gl.constexpr, NW: gl.constexpr, PDL: gl.constexpr,
):  # fmt: skip
    """y [N0 + N1] = two matrices, below one another, times a vector.

    ``NORM`` divides by the root mean square, ``SQUARES`` leaves partial sums of the results'.
    """
    LAYOUT: gl.constexpr = output_layout(R, NW)
    program = gl.program_id(0)
    let_next_start(PDL)
    row = program * OUTPUTS + gl.arange(0, OUTPUTS, layout=LAYOUT)
    if program * OUTPUTS < N0:
        first = program * OUTPUTS
        ahead = load_ahead(w0, first, AHEAD, FORMAT0, N0, K, R, NW)
        wait(PDL)
        v = dot_rows(ahead, w0, first, x, xf, AHEAD, FORMAT0, N0, K, R, NW)
        if NORM:
            v = v * inverse_rms(squares, eps, K, NW)
        if BIAS:
            v = v + gl.load(bias + row)
        gl.store(y + row, v)
        if SQUARES:
            gl.store(y_squares + program, gl.sum(v * v, axis=0))
    else:
        if N1 > 0:
            first = program * OUTPUTS - N0
            # A name of its own: what floats and codes load is not alike.
            ahead_1 = load_ahead(w1, first, AHEAD, FORMAT1, N1, K, R, NW)
            wait(PDL)
            v = dot_rows(ahead_1, w1, first, x, xf, AHEAD, FORMAT1, N1, K, R, NW)
            if NORM:
                v = v * inverse_rms(squares, eps, K, NW)
            if BIAS:
                v = v + gl.load(bias + row)
            gl.store(y + row, v)


@gluon.jit
def score(
    w, x, xf, squares, eps, logits, peaks,
    K: gl.constexpr, N: gl.constexpr, VOCAB: gl.constexpr, FORMAT: gl.constexpr,
    SOFTCAP: gl.constexpr, AHEAD: gl.constexpr, R: gl.constexpr, NW: gl.constexpr,
    PDL: gl.constexpr,
):  # fmt: skip
    """Logits of the vocabulary, and the largest of each 16: what sampling looks at first.

    Something that is no number shows as an infinite peak.
    """
    LAYOUT: gl.constexpr = output_layout(R, NW)
    program = gl.program_id(0)
    let_next_start(PDL)
    first = program * OUTPUTS
    ahead = load_ahead(w, first, AHEAD, FORMAT, N, K, R, NW)
    wait(PDL)
    v = dot_rows(ahead, w, first, x, xf, AHEAD, FORMAT, N, K, R, NW)
    v = v * inverse_rms(squares, eps, K, NW)
    if SOFTCAP > 0.0:
        v = SOFTCAP * (1.0 - 2.0 / (1.0 + gl.exp(v * (2.0 / SOFTCAP))))
    row = first + gl.arange(0, OUTPUTS, layout=LAYOUT)
    gl.store(logits + row, v, mask=row < VOCAB)
    v = gl.where(v == v, v, float("inf"))
    gl.store(peaks + program, gl.max(gl.where(row < VOCAB, v, float("-inf")), axis=0))


@gluon.jit
def add(
    w, x, xf, bias, h, norm, y, yf, y_squares,
    K: gl.constexpr, N: gl.constexpr, FORMAT: gl.constexpr, BIAS: gl.constexpr,
    INTS: gl.constexpr, FLOATS: gl.constexpr, AHEAD: gl.constexpr, R: gl.constexpr,
    NW: gl.constexpr, PDL: gl.constexpr,
):  # fmt: skip
    """h += matrix times vector; the next vector is h times the next norm's weights."""
    LAYOUT: gl.constexpr = output_layout(R, NW)
    program = gl.program_id(0)
    let_next_start(PDL)
    first = program * OUTPUTS
    row = first + gl.arange(0, OUTPUTS, layout=LAYOUT)
    ahead = load_ahead(w, first, AHEAD, FORMAT, N, K, R, NW)
    weight = gl.load(norm + row)
    wait(PDL)
    v = dot_rows(ahead, w, first, x, xf, AHEAD, FORMAT, N, K, R, NW)
    if BIAS:
        v = v + gl.load(bias + row)
    v = v + gl.load(h + row)
    gl.store(h + row, v)
    gl.store(y_squares + program, gl.sum(v * v, axis=0))
    emit(v * weight, program, y, yf, N, INTS, FLOATS, LAYOUT)


@gluon.jit
def gated(
    w_gate, w_up, x, xf, squares, eps, y, yf,
    K: gl.constexpr, N: gl.constexpr, FORMAT: gl.constexpr, GELU: gl.constexpr,
    INTS: gl.constexpr, FLOATS: gl.constexpr, AHEAD: gl.constexpr, AHEAD_UP: gl.constexpr,
    R: gl.constexpr, NW: gl.constexpr, PDL: gl.constexpr,
):  # fmt: skip
    """y [N] = activation(gate · x) times (up · x)."""
    LAYOUT: gl.constexpr = output_layout(R, NW)
    program = gl.program_id(0)
    let_next_start(PDL)
    first = program * OUTPUTS
    ahead = load_ahead(w_gate, first, AHEAD, FORMAT, N, K, R, NW)
    ahead_up = load_ahead(w_up, first, AHEAD_UP, FORMAT, N, K, R, NW)
    wait(PDL)
    factor = inverse_rms(squares, eps, K, NW)
    gate = dot_rows(ahead, w_gate, first, x, xf, AHEAD, FORMAT, N, K, R, NW) * factor
    up = dot_rows(ahead_up, w_up, first, x, xf, AHEAD_UP, FORMAT, N, K, R, NW) * factor
    emit(activated(gate, GELU) * up, program, y, yf, N, INTS, FLOATS, LAYOUT)


@gluon.jit
def join(
    o, o_squares, o_norm, eps, h, norm, y, yf, y_squares,
    N: gl.constexpr, INTS: gl.constexpr, FLOATS: gl.constexpr, PDL: gl.constexpr,
):  # fmt: skip
    """h += normed o, for families that norm what a half of a block gives; then as in ``add``."""
    LAYOUT: gl.constexpr = gl.BlockedLayout([1], [32], [1], [0])
    program = gl.program_id(0)
    let_next_start(PDL)
    row = program * OUTPUTS + gl.arange(0, OUTPUTS, layout=LAYOUT)
    before = gl.load(o_norm + row)
    weight = gl.load(norm + row)
    wait(PDL)
    factor = inverse_rms(o_squares, eps, N, 1)
    v = gl.load(h + row) + gl.load(o + row) * factor * before
    gl.store(h + row, v)
    gl.store(y_squares + program, gl.sum(v * v, axis=0))
    emit(v * weight, program, y, yf, N, INTS, FLOATS, LAYOUT)


@gluon.jit
def pack(x, y, yf, N: gl.constexpr, INTS: gl.constexpr, FLOATS: gl.constexpr, PDL: gl.constexpr):
    """A plain vector as what the next matrix is multiplied with."""
    LAYOUT: gl.constexpr = gl.BlockedLayout([1], [32], [1], [0])
    program = gl.program_id(0)
    let_next_start(PDL)
    wait(PDL)
    v = gl.load(x + program * OUTPUTS + gl.arange(0, OUTPUTS, layout=LAYOUT)).to(gl.float32)
    emit(v, program, y, yf, N, INTS, FLOATS, LAYOUT)
