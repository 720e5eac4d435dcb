"""Opens a GGUF file with llama.cpp and makes an engine of it."""

from __future__ import annotations

import ctypes
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from lhama.backends import devices
from lhama.backends.llamacpp import memory
from lhama.backends.llamacpp.batch import Batch
from lhama.backends.llamacpp.context import Context
from lhama.backends.llamacpp.embedder import LlamaCppEmbedder
from lhama.backends.llamacpp.engine import LlamaCppEngine
from lhama.backends.llamacpp.lane import Lane, compare
from lhama.backends.llamacpp.library import L, log
from lhama.backends.llamacpp.tokenizer import LlamaTokenizer
from lhama.plugins.backend import (
    BackendError,
    Engine,
    Limits,
    LoadOptions,
    MemoryEstimate,
    ModelFiles,
    OutOfMemory,
    Progress,
    Residency,
    UnsupportedModel,
)
from lhama.plugins.gguf import GGUF

if TYPE_CHECKING:
    from lhama.backends.llamacpp.media import MediaReader

_MOST_THREADS: Final = 512
"""ggml's, which looks at no bound."""

_KV_TYPES: Final = {
    "f32": L.GGML_TYPE_F32,
    "f16": L.GGML_TYPE_F16,
    "bf16": 30,  # the binding does not name it
    "q8_0": L.GGML_TYPE_Q8_0,
    "q5_1": L.GGML_TYPE_Q5_1,
    "q5_0": L.GGML_TYPE_Q5_0,
    "q4_1": L.GGML_TYPE_Q4_1,
    "q4_0": L.GGML_TYPE_Q4_0,
}
_MIB: Final = 1 << 20


def load(model: ModelFiles, header: GGUF, options: LoadOptions, progress: Progress) -> Engine:
    """The whole way from a file to an engine; frees what it took if a step of it fails."""
    log().clear()
    accelerators = devices.nvidia() or devices.metal() if L.llama_supports_gpu_offload() else []
    free = sum(device.free_bytes for device in accelerators) - memory.file_bytes(model.projectors)
    layers = memory.gpu_layers(header, options, free) if accelerators else 0
    needed = memory.estimate(header, options, free if accelerators else None, model.projectors)
    _check_memory(needed)
    device = accelerators[0].id if layers else "cpu"
    residency = Residency(device, needed.total_bytes, needed.device_bytes, layers)
    with ExitStack() as taken:
        pointer = _open(model, options, layers, progress)
        taken.callback(L.llama_model_free, pointer)
        loading = _Loading(pointer, model, header, options, residency, taken)
        engine = _embedder(loading) if options.embedding else _engine(loading, progress)
        taken.pop_all()
        return engine


@dataclass(frozen=True, slots=True)
class _Loading:
    """An opened model on its way to an engine."""

    model: Any
    files: ModelFiles
    header: GGUF
    options: LoadOptions
    residency: Residency
    taken: ExitStack
    """Frees what was made so far, if the rest fails."""

    @property
    def on_device(self) -> bool:
        """Whether nothing of the model is computed on the processor."""
        return self.residency.gpu_layers > int(L.llama_model_n_layer(self.model))

    def free_model(self) -> None:
        L.llama_model_free(self.model)

    def context(self, first: int = 0, *, slots: int = 0, levels: bool = False) -> Context:
        """A context for ``slots`` sequences, all if not given."""
        options = replace(self.options, slots=slots or self.options.slots)
        pointer = _make_context(self.model, self.header, options, self.residency)
        context = Context(pointer, self.vocab, first, levels=levels)
        self.taken.callback(context.close)
        _add_adapters(self.model, pointer, self.files.adapters)
        return context

    def media(self) -> MediaReader | None:
        """The model's projector, if it has one."""
        if not self.files.projectors:
            return None
        from lhama.backends.llamacpp.media import MediaReader

        threads = self.options.threads or devices.physical_cores()
        path = self.files.projectors[0]
        reader = MediaReader(self.model, path, threads, on_device=self.on_device)
        self.taken.callback(reader.close)
        return reader

    @property
    def vocab(self) -> int:
        return int(L.llama_vocab_n_tokens(L.llama_model_get_vocab(self.model)))


def _check_memory(needed: MemoryEstimate) -> None:
    host = needed.total_bytes - needed.device_bytes
    available = devices.host().free_bytes
    if host > available:
        raise OutOfMemory(
            f"model requires more system memory ({host / _MIB:.1f} MiB) "
            f"than is available ({available / _MIB:.1f} MiB)"
        )


def _open(model: ModelFiles, options: LoadOptions, layers: int, progress: Progress) -> Any:
    params = L.llama_model_default_params()
    params.n_gpu_layers = layers
    params.main_gpu = options.main_gpu
    if options.mmap is not None:
        params.load_mode = L.LLAMA_LOAD_MODE_MMAP if options.mmap else L.LLAMA_LOAD_MODE_NONE

    def report(share: float, _user_data: object) -> bool:
        progress(share, "loading weights")
        return True

    params.progress_callback = L.llama_progress_callback(report)
    pointer = L.llama_model_load_from_file(model.weights.encode(), params)
    if not pointer:
        raise UnsupportedModel(f"llama.cpp cannot load {model.name}: {_reason()}")
    return pointer


def _make_context(model: Any, header: GGUF, options: LoadOptions, residency: Residency) -> Any:
    offloaded = residency.gpu_layers > 0
    batch = memory.batch_room(header, options, offloaded)
    params = L.llama_context_default_params()
    params.n_ctx = max(memory.context_tokens(header, options), batch)
    params.n_batch = batch
    params.n_ubatch = memory.ubatch_tokens(header, options, offloaded)
    threads = min(options.threads or devices.physical_cores(), _MOST_THREADS)
    params.n_threads = params.n_threads_batch = threads
    params.type_k = params.type_v = _KV_TYPES[options.kv_type]
    # A stream of cells for each sequence: its sums do not depend on where its cells lie among the
    # others', attention reads no cell of another's, and CUDA graphs live 256 steps, not 256 tokens.
    params.kv_unified = options.embedding
    params.swa_full = True  # a cache of the window alone could not be trimmed back
    fused = memory.flash_attention(options, offloaded)
    if fused is not None:
        params.flash_attn_type = int(fused)
    if options.embedding:
        params.embeddings = True
        params.n_seq_max = memory.EMBEDDING_TEXTS
        if not header.get_int(header.key("pooling_type")):
            params.pooling_type = L.LLAMA_POOLING_TYPE_MEAN
    else:
        params.n_seq_max = options.slots
        params.n_outputs_max = options.slots  # one row of logits for each sequence and step
        params.n_outputs_max_per_seq = 1
    pointer = L.llama_init_from_model(model, params)
    if pointer:
        return pointer
    reason = _reason()
    if "alloc" in reason:
        needed = residency.total_bytes / _MIB
        raise OutOfMemory(f"needs {needed:.1f} MiB; llama.cpp says: {reason}")
    raise BackendError(f"llama.cpp cannot make a context: {reason}")


def _add_adapters(model: Any, context: Any, paths: tuple[str, ...]) -> None:
    """LoRA adapters, each at full strength; llama.cpp frees them with the model."""
    if not paths:
        return
    adapters = []
    for path in paths:
        adapter = L.llama_adapter_lora_init(model, path.encode())
        if not adapter:
            raise UnsupportedModel(f"llama.cpp cannot load the adapter: {_reason()}")
        adapters.append(adapter)
    count = len(adapters)
    pointers = (L.llama_adapter_lora_p_ctypes * count)(*adapters)
    scales = (ctypes.c_float * count)(*[1.0] * count)
    if L.llama_set_adapters_lora(context, pointers, count, scales):
        raise UnsupportedModel(f"llama.cpp cannot apply the adapters: {_reason()}")


def _engine(loading: _Loading, progress: Progress) -> LlamaCppEngine:
    model, options = loading.model, loading.options
    trimmable = not (L.llama_model_is_recurrent(model) or L.llama_model_is_hybrid(model))
    lanes, verdict = _lanes(loading, levels=loading.on_device and trimmable, progress=progress)
    features = set[str]()
    if trimmable:
        features.add("copy")
        if lanes[0].context.can_shift:
            features.add("shift")
    media = loading.media()
    if media is not None:
        features.add("media")
    limits = Limits(
        slots=options.slots,
        context=options.context,
        batch_tokens=memory.batch_tokens(loading.header, options),
        vocab=loading.vocab,
        token_feed="host",
        groups=len(lanes),
        shares_cores=not loading.on_device,
        ragged=not loading.on_device,
        # On a device every pass with a prompt has its price, whatever its length (``leveling``).
        prompt_share=0.5 if loading.on_device else 0.25,
        late_mask=True,
        features=frozenset(features),
    )
    return LlamaCppEngine(
        lanes,
        LlamaTokenizer(L.llama_model_get_vocab(model)),
        limits,
        replace(loading.residency, notes=(verdict,) if verdict else ()),
        loading.free_model,
        blocking=not loading.on_device,
        media=media,
    )


def _lanes(loading: _Loading, *, levels: bool, progress: Progress) -> tuple[list[Lane], str]:
    """One lane with all slots, or two with half of them each where those are seen to be faster."""
    slots = loading.options.slots
    tokens = memory.batch_room(loading.header, loading.options, loading.on_device)
    verdict = ""
    if loading.on_device and memory.halves(loading.options):
        progress(1.0, "trying one context and two")
        half = slots // 2
        with ExitStack() as tried:
            both = []
            for first in (0, half):
                context = loading.context(first, slots=half, levels=levels)
                tried.callback(context.close)
                both.append(Lane(context, first, half, tokens))
            pays, verdict = compare(both, loading.vocab)
            if pays:
                tried.pop_all()
                return both, verdict
    return [Lane(loading.context(levels=levels), 0, slots, tokens)], verdict


def _embedder(loading: _Loading) -> LlamaCppEmbedder:
    model, header, options = loading.model, loading.header, loading.options
    context = loading.context()
    ranks = L.llama_pooling_type(context.pointer) == L.LLAMA_POOLING_TYPE_RANK
    limits = Limits(
        slots=memory.EMBEDDING_TEXTS,
        context=memory.longest_text(header, options),
        batch_tokens=memory.embedding_step(header, options, loading.on_device),
        vocab=loading.vocab,
        features=frozenset(("embed", "rank") if ranks else ("embed",)),
    )
    width = L.llama_model_n_cls_out(model) if ranks else L.llama_model_n_embd_out(model)
    tokenizer = LlamaTokenizer(L.llama_model_get_vocab(model))
    return LlamaCppEmbedder(
        context,
        Batch(memory.batch_tokens(header, options)),
        tokenizer,
        limits,
        loading.residency,
        loading.free_model,
        width,
    )


def _reason() -> str:
    return log().errors() or "it gives no reason"
