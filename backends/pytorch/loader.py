"""From a GGUF file to an engine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

import torch

from lhama.backends import devices
from lhama.backends.pytorch import memory
from lhama.backends.pytorch.adapters import Adapter
from lhama.backends.pytorch.bert_parameters import BertParameters, read_parameters
from lhama.backends.pytorch.cuda import compiling, support
from lhama.backends.pytorch.decoder import Decoder
from lhama.backends.pytorch.embedder import PyTorchEmbedder
from lhama.backends.pytorch.encoders.bert import Bert
from lhama.backends.pytorch.encoders.encoder import CausalEncoder, Classifier, Encoder, Pooling
from lhama.backends.pytorch.encoders.gemma_embedding import GemmaEmbedding
from lhama.backends.pytorch.engine import PyTorchEngine
from lhama.backends.pytorch.hyperparameters import ENCODERS, Hyperparameters
from lhama.backends.pytorch.kv_cache import KVCache
from lhama.backends.pytorch.tokenizer import GGUFTokenizer
from lhama.backends.pytorch.weights import Weights
from lhama.plugins.backend import (
    BackendError,
    Device,
    Engine,
    Limits,
    LoadOptions,
    MemoryEstimate,
    OutOfMemory,
    Progress,
    Residency,
    UnsupportedModel,
)
from lhama.plugins.gguf import GGUF

_MIB: Final = 1 << 20


def load(
    header: GGUF,
    options: LoadOptions,
    device: Device,
    progress: Progress,
    adapters: Sequence[str] = (),
    *,
    token_feed: Literal["device", "host"] | None = None,
) -> Engine:
    """``header`` was read with its vocabulary. ``token_feed`` overrides the device's own."""
    shape = read_parameters(header)
    if shape.family in ENCODERS and not options.embedding:
        raise UnsupportedModel(f"a model of the family {shape.family} does not generate")
    threads = options.threads or devices.physical_cores()
    torch.set_num_threads(threads)
    notes: tuple[str, ...] = ()
    if device.kind == "cuda" and token_feed is None:
        capability = devices.compute_capability(device)
        why = support.refusal(header, shape, options, capability, adapters)
        if not why:
            assert isinstance(shape, Hyperparameters)
            return _with_kernels(header, shape, options, device, progress)
        notes = (f"without kernels of its own: {why}",)
    needed = memory.estimate(shape, options, device.kind)
    _check_memory(needed, options, device)
    place = _place(device)
    dtype = _dtype(memory.element_bytes(shape, device.kind), place, shape)
    on_device = needed.total_bytes if device.kind != "cpu" else 0
    layers = shape.layers + 1 if device.kind != "cpu" else 0
    residency = Residency(
        device.id, needed.total_bytes, min(on_device, needed.device_bytes), layers, notes
    )
    progress(0.0, "reading the vocabulary")
    tokenizer = GGUFTokenizer(header)
    try:
        with torch.inference_mode():
            changing = [Adapter(path, header, place, dtype) for path in adapters]
            weights = Weights(header, place, dtype, _report(header, progress), changing)
            if options.embedding:
                encoder = _encoder(shape, weights, options, place, dtype, device.kind)
                _check(changing)
                limits = _embedding_limits(shape, options, device.kind)
                return PyTorchEmbedder(encoder, tokenizer, limits, residency, threads)
            assert isinstance(shape, Hyperparameters)
            model = Decoder(shape, weights, options.context, place)
            _check(changing)
            slots = memory.slots(options)
            cache = KVCache(shape, slots, options.context, place, dtype)
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise OutOfMemory(f"{_sizes(needed.total_bytes, device.free_bytes)}: {error}") from error
    except RuntimeError as error:
        raise BackendError(f"PyTorch cannot load the model: {error}") from error
    return PyTorchEngine(
        model,
        cache,
        tokenizer,
        place,
        residency,
        batch_tokens=memory.batch_tokens(options),
        threads=threads,
        token_feed=token_feed,
    )


def _check(adapters: Sequence[Adapter]) -> None:
    """Raises ``UnsupportedModel`` for an adapter that changes what the model did not ask for."""
    for adapter in adapters:
        adapter.check()


def _with_kernels(
    header: GGUF,
    shape: Hyperparameters,
    options: LoadOptions,
    device: Device,
    progress: Progress,
) -> Engine:
    """The engine of NVIDIA cards."""
    needed = support.estimate(header, shape, options)
    _check_memory(needed, options, device)
    place = _place(device)
    progress(0.0, "reading the vocabulary")
    tokenizer = GGUFTokenizer(header)
    compiling.use_cache_folder()
    from lhama.backends.pytorch.cuda.loader import load as load_on_card

    residency = Residency(device.id, needed.total_bytes, needed.device_bytes, shape.layers + 1)
    report = _report(header, progress)
    try:
        return load_on_card(
            header, shape, options, place, tokenizer, residency, report,
            lambda what: progress(report.share, what),
        )  # fmt: skip
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise OutOfMemory(f"{_sizes(needed.total_bytes, device.free_bytes)}: {error}") from error
    except RuntimeError as error:
        raise BackendError(f"PyTorch cannot load the model: {error}") from error


def _encoder(
    shape: memory.Parameters,
    weights: Weights,
    options: LoadOptions,
    place: torch.device,
    dtype: torch.dtype,
    kind: memory.Kind,
) -> Encoder:
    if isinstance(shape, BertParameters):
        return Bert(shape, weights, options.context, place)
    if shape.family == "gemma-embedding":
        return GemmaEmbedding(shape, weights, options.context, place)
    model = Decoder(shape, weights, options.context, place)
    pooling = Pooling(shape.pooling or Pooling.MEAN)
    classifier = None
    if pooling is Pooling.RANK:
        shares = shape.family == "qwen3"
        classifier = Classifier(weights, shape.width, shape.outputs, shares=shares)
    cache = KVCache(shape, 1, memory.embedding_room(shape, options, kind), place, dtype)
    piece = memory.embedding_tokens(kind)
    return CausalEncoder(model, cache, pooling, place, piece, classifier)


def _embedding_limits(shape: memory.Parameters, options: LoadOptions, kind: memory.Kind) -> Limits:
    ranks = shape.pooling == Pooling.RANK
    return Limits(
        slots=memory.EMBEDDING_TEXTS,
        context=memory.longest_text(shape, options),
        batch_tokens=memory.embedding_tokens(kind),
        vocab=shape.vocab,
        features=frozenset(("embed", "rank") if ranks else ("embed",)),
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


def _dtype(element: int, place: torch.device, shape: memory.Parameters) -> torch.dtype:
    if element == 4:
        return torch.float32
    if isinstance(shape, BertParameters):
        return torch.float16  # norms keep its numbers small, and vectors need the digits
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
        self._progress(self.share, "loading weights")

    @property
    def share(self) -> float:
        return min(1.0, self._done / self._total)
