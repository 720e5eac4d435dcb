"""From a GGUF file to an engine."""

from __future__ import annotations

from typing import Final, Literal

import torch

from lhama.backends import devices
from lhama.backends.pytorch import families, memory
from lhama.backends.pytorch.engine import PyTorchEngine
from lhama.backends.pytorch.hyperparameters import Hyperparameters
from lhama.backends.pytorch.kv_cache import KVCache
from lhama.backends.pytorch.tokenizer import GGUFTokenizer
from lhama.backends.pytorch.weights import Weights
from lhama.plugins.backend import (
    BackendError,
    Device,
    LoadOptions,
    MemoryEstimate,
    OutOfMemory,
    Progress,
    Residency,
)
from lhama.plugins.gguf import GGUF

_MIB: Final = 1 << 20


def load(
    header: GGUF,
    options: LoadOptions,
    device: Device,
    progress: Progress,
    *,
    token_feed: Literal["device", "host"] | None = None,
) -> PyTorchEngine:
    """``header`` was read with its vocabulary. ``token_feed`` overrides the device's own."""
    shape = Hyperparameters.read(header)
    needed = memory.estimate(shape, options, device.kind)
    _check_memory(needed, options, device)
    threads = options.threads or devices.physical_cores()
    torch.set_num_threads(threads)
    place = _place(device)
    dtype = _dtype(memory.element_bytes(shape, device.kind), place)
    progress(0.0, "reading the vocabulary")
    tokenizer = GGUFTokenizer(header)
    try:
        with torch.inference_mode():
            weights = Weights(header, place, dtype, _report(header, progress))
            model = families.build(shape, weights, options.context, place)
            slots = memory.slots(options)
            cache = KVCache(shape, slots, options.context, place, dtype)
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise OutOfMemory(f"{_sizes(needed.total_bytes, device.free_bytes)}: {error}") from error
    except RuntimeError as error:
        raise BackendError(f"PyTorch cannot load the model: {error}") from error
    on_device = needed.total_bytes if device.kind != "cpu" else 0
    layers = shape.layers + 1 if device.kind != "cpu" else 0
    return PyTorchEngine(
        model,
        cache,
        tokenizer,
        place,
        Residency(device.id, needed.total_bytes, min(on_device, needed.device_bytes), layers),
        batch_tokens=memory.batch_tokens(options),
        pooling=(shape.pooling or 1) if options.embedding else None,
        threads=threads,
        token_feed=token_feed,
    )


def _check_memory(needed: MemoryEstimate, options: LoadOptions, device: Device) -> None:
    host = needed.total_bytes - needed.device_bytes
    if host > (free := devices.host().free_bytes):
        raise OutOfMemory(_sizes(host, free))
    if device.kind != "cpu":
        free = max(0, device.free_bytes - options.gpu_overhead_bytes)
        if needed.device_bytes > free:
            raise OutOfMemory(_sizes(needed.device_bytes, free, "accelerator"))


def _sizes(needed: int, free: int, kind: str = "system") -> str:
    return (
        f"model requires more {kind} memory ({needed / _MIB:.1f} MiB) "
        f"than is available ({free / _MIB:.1f} MiB)"
    )


def _place(device: Device) -> torch.device:
    if device.kind == "cpu":
        return torch.device("cpu")
    if device.kind == "metal":
        return torch.device("mps")
    if not torch.cuda.is_available():
        raise BackendError("this build of PyTorch cannot use the GPU: is its driver too old?")
    return torch.device(device.id)


def _dtype(element: int, place: torch.device) -> torch.dtype:
    if element == 4:
        return torch.float32
    if place.type == "cuda" and torch.cuda.is_bf16_supported():
        return torch.bfloat16
    return torch.float16


class _report:  # noqa: N801 - reads as the function it is
    """Turns bytes read into progress."""

    def __init__(self, header: GGUF, progress: Progress) -> None:
        self._total = sum(tensor.nbytes for tensor in header.tensors.values())
        self._progress = progress
        self._done = 0

    def __call__(self, nbytes: int) -> None:
        self._done += nbytes
        self._progress(min(1.0, self._done / self._total), "loading weights")
