"""Calls ``llama_model_quantize``; runs in a worker process."""

from __future__ import annotations

import ctypes
import re
from typing import Any, Final

from lhama.backends import devices
from lhama.backends.llamacpp.library import L, log
from lhama.backends.llamacpp.quantizer import FILE_TYPES
from lhama.plugins.backend import BackendError, Progress
from lhama.plugins.tools import COPY

_TENSOR: Final = re.compile(rb"\[ *(\d+)/ *(\d+)\] *(\S*)")
"""How llama.cpp's log begins a tensor."""

_BUFFER_BYTES: Final = 1 << 30
"""Most of a tensor in memory at once; llama.cpp's own limit is 8 GiB."""

_K_QUANTS: Final = ("Q4_K_S", "Q4_K_M")

_KEPT: Final[dict[str, tuple[tuple[str, str], ...]]] = {
    "qwen35": ((r"^blk\.[0-9]+\.nextn\.eh_proj\.weight$", "q8_0"),),
    "qwen35moe": ((r"^blk\.[0-9]+\.nextn\.eh_proj\.weight$", "q8_0"),),
    "gemma3n": ((r"^per_layer_token_embd\.weight$", "f16"),),
    "deepseek2": tuple(
        (rf"{name}\.weight$", "q8_0")
        for name in ("attn_k_b", "attn_q_a", "attn_q_b", "attn_v_b", "attn_kv_a_mqa")
    ),
    "glmocr": ((r"^token_embd\.weight$", "f16"), (r"^output\.weight$", "f16")),
    "glm4": ((r"^token_embd\.weight$", "f16"), (r"^output\.weight$", "f16")),
}
"""Small tensors of some architectures that lose much by four bits: Ollama keeps them, too."""


def quantize(source: str, target: str, kind: str, architecture: str, progress: Progress) -> None:
    """Write ``target``. Raises ``BackendError`` with llama.cpp's words."""
    catcher = log()
    catcher.clear()

    def listen(text: bytes) -> None:
        if match := _TENSOR.match(text):
            progress((int(match[1]) - 1) / max(1, int(match[2])), match[3].decode())

    catcher.listener = listen
    params = L.llama_model_quantize_default_params()
    params.ftype = FILE_TYPES[kind]
    params.only_copy = kind == COPY
    params.allow_requantize = True
    params.nthread = devices.physical_cores()
    params.max_buf_size = _BUFFER_BYTES
    kept = _overrides(architecture) if kind in _K_QUANTS else None
    if kept is not None:
        params.tt_overrides = kept
    if L.llama_model_quantize(source.encode(), target.encode(), ctypes.byref(params)):
        raise BackendError(catcher.errors() or "llama.cpp gives no reason")
    progress(1.0, "")


def _overrides(architecture: str) -> Any:
    """A C array of (pattern, type), ended by an empty entry; ``None`` for most architectures."""
    rules = _KEPT.get(architecture)
    if rules is None:
        return None
    types = {"q8_0": L.GGML_TYPE_Q8_0, "f16": L.GGML_TYPE_F16}
    entries = [(pattern.encode(), types[name]) for pattern, name in rules]
    return (L.llama_model_tensor_override * (len(entries) + 1))(*entries, (None, 0))
