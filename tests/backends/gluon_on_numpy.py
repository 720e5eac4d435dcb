"""Runs the CUDA engine's kernels on a processor: Triton's and Gluon's language over numpy.

``install`` puts modules of this file where ``triton`` would be, so that kernels import unchanged.
A launch runs its programs one after the other, each over whole tiles; layouts mean nothing here.
Every load and store is checked against the tensor's memory. What this cannot show is how programs
and kernels run side by side, and how fast: that needs a card (``test_cuda_*``).
"""

from __future__ import annotations

import ctypes
import importlib.util
import itertools
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch

Array = np.ndarray[Any, Any]


class Tensor(np.ndarray):
    """A tile. Arithmetic stays in 32 bits where Triton's does."""

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        kwargs.pop("out", None)  # an in-place operator: its name is bound anew
        plain = [x.view(np.ndarray) if isinstance(x, Tensor) else x for x in inputs]
        with np.errstate(all="ignore"):
            result = getattr(ufunc, method)(*plain, **kwargs)
        return _tile(result)

    def to(self, dtype: Any, bitcast: bool = False, **_: Any) -> Tensor:
        if bitcast:
            return _tile(np.ascontiguousarray(self).view(np.ndarray).view(_numpy(dtype)))
        if dtype is BF16:
            return _tile(_bf16_bits(self).astype(np.uint32) << 16).to(np.float32, bitcast=True)
        with np.errstate(all="ignore"):
            return self.astype(_numpy(dtype)).view(Tensor)

    @property
    def type(self) -> Any:
        return types.SimpleNamespace(layout=None)


def _tile(result: Any) -> Any:
    array = np.asarray(result)
    if array.dtype == np.float64:
        array = array.astype(np.float32)
    return array.view(Tensor)


class _BF16:
    itemsize = 2


BF16 = _BF16()


def _numpy(dtype: Any) -> Any:
    return np.uint16 if dtype is BF16 else dtype


def _bf16_bits(values: Any) -> Array:
    """float32 to the nearest bfloat16."""
    tensor = torch.from_numpy(np.array(values, np.float32))
    return tensor.bfloat16().view(torch.int16).numpy().astype(np.uint16)


class Pointer:
    """Places in one tensor's memory: ``at`` counts bytes."""

    def __init__(self, memory: Array, at: Any, kind: Any) -> None:
        self.memory = memory
        self.at = at
        self.kind = kind

    @property
    def size(self) -> int:
        return int(np.dtype(_numpy(self.kind)).itemsize)

    @property
    def dtype(self) -> Any:
        return types.SimpleNamespace(element_ty=self.kind)

    def __add__(self, offset: Any) -> Pointer:
        return Pointer(self.memory, self.at + np.asarray(offset, np.int64) * self.size, self.kind)

    __radd__ = __add__

    def __getitem__(self, key: Any) -> Pointer:
        return Pointer(self.memory, np.asarray(self.at)[key], self.kind)

    def to(self, kind: PointerType, bitcast: bool = True) -> Pointer:
        return Pointer(self.memory, self.at, kind.dtype)

    def cells(self, mask: Any) -> tuple[Array, Array, Array]:
        """The memory as elements, which of them, and which are really meant."""
        at = np.asarray(self.at)
        meant = np.broadcast_to(np.asarray(True if mask is None else mask, bool), at.shape)
        assert not (at[meant] % self.size).any(), "a misaligned address"
        places = np.where(meant, at // self.size, 0)
        elements = self.memory[: len(self.memory) // self.size * self.size]
        elements = elements.view(_numpy(self.kind))
        assert (places >= 0).all(), "before the tensor"
        assert (places < len(elements)).all(), "behind the tensor"
        return elements, places, meant


class PointerType:
    def __init__(self, dtype: Any) -> None:
        self.dtype = dtype


_TORCH = {
    torch.float32: np.float32,
    torch.float16: np.float16,
    torch.bfloat16: BF16,
    torch.int64: np.int64,
    torch.int32: np.int32,
    torch.int16: np.int16,
    torch.int8: np.int8,
    torch.uint8: np.uint8,
    torch.bool: np.bool_,
}


def pointer(tensor: torch.Tensor) -> Pointer:
    storage = tensor.untyped_storage()
    memory = (ctypes.c_uint8 * storage.nbytes()).from_address(storage.data_ptr())
    at = tensor.storage_offset() * tensor.element_size()
    return Pointer(np.frombuffer(memory, np.uint8), np.int64(at), _TORCH[tensor.dtype])


# --------------------------------------------------------------------------------------- kernels

_program: tuple[int, ...] = (0, 0, 0)
_grid: tuple[int, ...] = (1, 1, 1)


class Kernel:
    """What ``jit`` makes: a function inside kernels, ``kernel[grid](…)`` outside."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.fn = function
        self.__name__ = function.__name__
        self.launches = 0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.fn(*args, **kwargs)

    def __getitem__(self, grid: Sequence[int]) -> Callable[..., None]:
        def launch(*args: Any, **options: Any) -> None:
            global _program, _grid
            for name in ("num_warps", "num_stages", "launch_pdl", "maxnreg"):
                options.pop(name, None)
            given = [pointer(a) if isinstance(a, torch.Tensor) else a for a in args]
            named = {
                k: pointer(a) if isinstance(a, torch.Tensor) else a for k, a in options.items()
            }
            _grid = (*grid, 1, 1)[:3]
            self.launches += 1
            for z, y, x in itertools.product(*(range(n) for n in reversed(_grid))):
                _program = (x, y, z)
                self.fn(*given, **named)

        return launch


def jit(function: Callable[..., Any] | None = None, **_: Any) -> Any:
    return Kernel(function) if function is not None else jit


def program_id(axis: int) -> Tensor:
    return _tile(np.int32(_program[axis]))


def num_programs(axis: int) -> Tensor:
    return _tile(np.int32(_grid[axis]))


def load(pointer: Pointer, mask: Any = None, other: Any = 0, **_: Any) -> Tensor:
    pointer, mask = _same_shape(pointer, mask)
    elements, places, meant = pointer.cells(mask)
    values = elements[places]
    if pointer.kind is BF16:
        values = (values.astype(np.uint32) << 16).view(np.float32)
    values = np.where(meant, values, np.asarray(other).astype(values.dtype))
    return _tile(values.astype(values.dtype))


def store(pointer: Pointer, value: Any, mask: Any = None, **_: Any) -> None:
    pointer, mask = _same_shape(pointer, mask)
    elements, places, meant = pointer.cells(mask)
    values = np.broadcast_to(np.asarray(value), places.shape)
    if pointer.kind is BF16:
        values = _bf16_bits(values)
    with np.errstate(all="ignore"):
        elements[places[meant]] = values[meant].astype(elements.dtype)


def _same_shape(pointer: Pointer, mask: Any) -> tuple[Pointer, Any]:
    if mask is None:
        return pointer, None
    at, mask = np.broadcast_arrays(np.asarray(pointer.at), np.asarray(mask))
    return Pointer(pointer.memory, at, pointer.kind), mask


def atomic_add(pointer: Pointer, value: Any, mask: Any = None, **_: Any) -> Tensor:
    before = load(pointer, mask)
    pointer, mask = _same_shape(pointer, mask)
    elements, places, meant = pointer.cells(mask)
    values = np.broadcast_to(np.asarray(value), places.shape)
    np.add.at(elements, places[meant], values[meant])
    return before


# ------------------------------------------------------------------------------------- functions


def arange(start: int, end: int, layout: Any = None) -> Tensor:
    assert (end - start) & (end - start - 1) == 0, "a range must be a power of two"
    return _tile(np.arange(start, end, dtype=np.int32))


def full(shape: Sequence[int], value: Any, dtype: Any, layout: Any = None) -> Tensor:
    return _tile(np.full(tuple(shape), value, _numpy(dtype)))


def zeros(shape: Sequence[int], dtype: Any, layout: Any = None) -> Tensor:
    return full(shape, 0, dtype)


def where(condition: Any, a: Any, b: Any) -> Tensor:
    like = next((x for x in (a, b) if isinstance(x, np.ndarray)), np.zeros(0, np.float32))
    a, b = (x if isinstance(x, np.ndarray) else np.asarray(x, like.dtype) for x in (a, b))
    return _tile(np.where(np.asarray(condition), np.asarray(a), np.asarray(b)))


def reduced(function: Any) -> Callable[..., Tensor]:
    def reduce(x: Tensor, axis: int | None = None, keep_dims: bool = False, **_: Any) -> Tensor:
        dtype = {"dtype": np.int32} if function is np.sum and x.dtype.kind in "ib" else {}
        if x.dtype == np.int64:
            dtype = {}
        values = np.asarray(x)
        if function in (np.max, np.min) and x.dtype.kind == "f":
            # Triton's ignore what is no number unless nothing else is there.
            with np.errstate(all="ignore"):
                name = np.fmax if function is np.max else np.fmin
                return _tile(name.reduce(values, axis=axis, keepdims=keep_dims))
        return _tile(function(values, axis=axis, keepdims=keep_dims, **dtype))

    return reduce


def cumsum(x: Tensor, axis: int = 0, **_: Any) -> Tensor:
    return _tile(np.cumsum(np.asarray(x), axis=axis, dtype=x.dtype))


def elementwise(function: Any) -> Callable[..., Tensor]:
    def apply(*args: Any, **_: Any) -> Tensor:
        with np.errstate(all="ignore"):
            return _tile(function(*(np.asarray(a) if isinstance(a, Tensor) else a for a in args)))

    return apply


def dot(a: Tensor, b: Tensor, acc: Any = None, **_: Any) -> Tensor:
    product = np.asarray(a).astype(np.float32) @ np.asarray(b).astype(np.float32)
    return _tile(product if acc is None else product + np.asarray(acc))


def inline_asm_elementwise(
    asm: str, constraints: str, args: Sequence[Any], dtype: Any, is_pure: bool, pack: int
) -> Any:
    words = asm.split()
    if words[:2] == ["{", "//"]:  # several instructions, named by a comment, with numbers
        name, *numbers = asm.splitlines()[0].split()[2:]
        return _INSTRUCTIONS[name](*args, *map(int, numbers))
    return _INSTRUCTIONS[words[0]](*args)


def _dp4a(codes_type: Any) -> Callable[..., Tensor]:
    def octets(words: Any, kind: Any) -> Array:
        words = np.ascontiguousarray(np.asarray(words), np.int32)
        return words.view(kind).reshape(*words.shape, 4).astype(np.int32)

    return lambda codes, x: _tile(
        (octets(codes, codes_type) * octets(x, np.int8)).sum(-1, np.int32)
    )


def _half_of_byte(words: Any, scale: Any, less: Any, byte: int, offset: int) -> Tensor:
    codes = (np.asarray(words) >> (8 * byte) & 0xFF).astype(np.float16) - np.float16(offset)
    exact = codes.astype(np.float32) * np.asarray(scale, np.float32) + np.asarray(less, np.float32)
    return _tile(exact.astype(np.float16))


_INSTRUCTIONS: dict[str, Callable[..., Any]] = {
    "dp4a.u32.s32": _dp4a(np.uint8),
    "dp4a.s32.s32": _dp4a(np.int8),
    "cvt.rni.s32.f32": lambda x: _tile(np.rint(np.asarray(x)).astype(np.int32)),
    "half_of_byte": _half_of_byte,
    "griddepcontrol.wait;": lambda: None,
    "griddepcontrol.launch_dependents;": lambda: None,
}


def _static_range(*args: Any) -> Iterator[int]:
    return iter(range(*args))


LANGUAGE: dict[str, Any] = {
    "constexpr": lambda value: value,
    "int1": np.bool_,
    "int8": np.int8,
    "int16": np.int16,
    "int32": np.int32,
    "int64": np.int64,
    "uint8": np.uint8,
    "uint16": np.uint16,
    "uint32": np.uint32,
    "uint64": np.uint64,
    "float16": np.float16,
    "bfloat16": BF16,
    "float32": np.float32,
    "pointer_type": PointerType,
    "program_id": program_id,
    "num_programs": num_programs,
    "load": load,
    "store": store,
    "atomic_add": atomic_add,
    "arange": arange,
    "full": full,
    "zeros": zeros,
    "zeros_like": lambda x: _tile(np.zeros_like(np.asarray(x))),
    "where": where,
    "sum": reduced(np.sum),
    "max": reduced(np.max),
    "min": reduced(np.min),
    "cumsum": cumsum,
    "exp": elementwise(np.exp),
    "exp2": elementwise(np.exp2),
    "log": elementwise(np.log),
    "log2": elementwise(np.log2),
    "sqrt": elementwise(np.sqrt),
    "rsqrt": elementwise(lambda x: 1 / np.sqrt(x)),
    "abs": elementwise(np.abs),
    "maximum": elementwise(np.fmax),
    "minimum": elementwise(np.fmin),
    "cdiv": lambda a, b: -(-a // b),
    "reshape": lambda x, *shape: _tile(np.reshape(x, shape[0] if len(shape) == 1 else shape)),
    "trans": lambda x: _tile(np.transpose(np.asarray(x))),
    "permute": lambda x, *dims: _tile(np.transpose(np.asarray(x), dims[0] if len(dims) == 1 else dims)),
    "gather": lambda x, index, axis: _tile(np.take_along_axis(np.asarray(x), np.asarray(index), axis)),
    "broadcast": lambda a, b: tuple(map(_tile, np.broadcast_arrays(np.asarray(a), np.asarray(b)))),
    "join": lambda a, b: _tile(np.stack(np.broadcast_arrays(np.asarray(a), np.asarray(b)), -1)),
    "expand_dims": lambda x, axis: _tile(np.expand_dims(np.asarray(x), axis)),
    "broadcast_to": lambda x, *shape: _tile(np.broadcast_to(np.asarray(x), shape[0] if len(shape) == 1 else shape)),
    "convert_layout": lambda x, layout, **_: x,
    "inline_asm_elementwise": inline_asm_elementwise,
    "static_range": _static_range,
    "range": lambda *args, **_: range(*(int(a) for a in args)),
    "static_assert": lambda condition, *_: None,
    "multiple_of": lambda x, n: x,
    "max_contiguous": lambda x, n: x,
    "debug_barrier": lambda: None,
    "thread_barrier": lambda: None,
    "dot": dot,
    **{
        name: lambda *args, **kwargs: None
        for name in (
            "BlockedLayout",
            "SliceLayout",
            "DotOperandLayout",
            "NVMMADistributedLayout",
            "DistributedLinearLayout",
            "SwizzledSharedLayout",
        )
    },
}  # fmt: skip


def install() -> bool:
    """Whether kernels now run here; false where a real Triton is, which is better tested itself."""
    if "triton" in sys.modules and getattr(sys.modules["triton"], "on_numpy", False):
        return True
    if importlib.util.find_spec("triton") is not None:
        return False

    def module(name: str, **content: Any) -> types.ModuleType:
        made = types.ModuleType(name)
        made.__dict__.update(content)
        sys.modules[name] = made
        return made

    language = module("triton.language", **LANGUAGE)
    ampere = module("triton.experimental.gluon.language.nvidia.ampere", mma_v2=dot)
    nvidia = module("triton.experimental.gluon.language.nvidia", ampere=ampere)
    gl = module("triton.experimental.gluon.language", nvidia=nvidia, **LANGUAGE)
    gluon = module(
        "triton.experimental.gluon", language=gl, jit=jit, constexpr_function=lambda f: f
    )
    experimental = module("triton.experimental", gluon=gluon)
    module(
        "triton",
        language=language,
        experimental=experimental,
        jit=jit,
        constexpr_function=lambda f: f,
        cdiv=lambda a, b: -(-a // b),
        on_numpy=True,
        __version__="0",
    )
    return True
