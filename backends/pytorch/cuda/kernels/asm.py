"""Machine instructions that Triton has no word for, one each."""

from __future__ import annotations

from triton.experimental import gluon
from triton.experimental.gluon import language as gl

# Triton 3.7 gave it another name.
barrier = getattr(gl, "thread_barrier", None) or gl.barrier


@gluon.jit
def dot4_unsigned(codes, x):
    """Sum over four bytes of unsigned codes times signed x."""
    return gl.inline_asm_elementwise(
        "dp4a.u32.s32 $0, $1, $2, 0;", "=r,r,r", [codes, x], gl.int32, True, 1
    )


@gluon.jit
def dot4_signed(codes, x):
    return gl.inline_asm_elementwise(
        "dp4a.s32.s32 $0, $1, $2, 0;", "=r,r,r", [codes, x], gl.int32, True, 1
    )


@gluon.jit
def rounded(x):
    """To the nearest integer, int32."""
    return gl.inline_asm_elementwise("cvt.rni.s32.f32 $0, $1;", "=r,f", [x], gl.int32, True, 1)


@gluon.jit
def wait(PDL: gl.constexpr):
    """Block until the kernel before has ended and its writes are seen.

    Reading weights before this is what hides the start of a kernel: they never change.
    """
    if PDL:
        gl.inline_asm_elementwise("griddepcontrol.wait; // $0", "=r", [], gl.int32, False, 1)


@gluon.jit
def let_next_start(PDL: gl.constexpr):
    """Allow the next kernel's programs onto free multiprocessors, up to their own ``wait``."""
    if PDL:
        gl.inline_asm_elementwise(
            "griddepcontrol.launch_dependents; // $0", "=r", [], gl.int32, False, 1
        )


@gluon.jit
def half_of_byte(words, scale, less, BYTE: gl.constexpr, OFFSET: gl.constexpr):
    """float16 (byte - OFFSET) · scale + less, for one byte of every word: two words at a time.

    0x6400 | byte is the float16 1024 + byte.
    """
    return gl.inline_asm_elementwise(
        half_of_byte_text(BYTE, OFFSET),
        "=r,r,r,r,r",
        [words, scale, less],
        gl.float16,
        True,
        2,
    )


@gluon.constexpr_function
def half_of_byte_text(BYTE, OFFSET):
    from_1024 = 0x6400 + OFFSET  # float16 of 1024 + OFFSET
    return f"""{{ // half_of_byte {BYTE} {OFFSET}
        .reg .b32 t, c;
        prmt.b32 t, $1, $2, 0x{BYTE + 4}{BYTE + 4}{BYTE}{BYTE};
        lop3.b32 t, t, 0x00ff00ff, 0x64006400, 0xea;
        mov.b32 c, 0x{from_1024:04x}{from_1024:04x};
        sub.f16x2 t, t, c;
        fma.rn.f16x2 $0, t, $3, $4; }}"""
