"""llama.cpp's logits for a text, through its low-level API: what the PyTorch backend is held to."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lhama.backends.llamacpp.library import L, log


class Oracle:
    """One model and one context, float32 cache, no flash attention, one sequence."""

    def __init__(self, path: Path, context: int, adapter: Path | None = None) -> None:
        log()  # keeps llama.cpp's messages off the terminal
        model = L.llama_model_default_params()
        self._model: Any = L.llama_model_load_from_file(str(path).encode(), model)
        assert self._model, f"llama.cpp refuses {path}: {log().errors()}"
        params = L.llama_context_default_params()
        params.n_ctx = params.n_batch = params.n_ubatch = context
        params.type_k = params.type_v = L.GGML_TYPE_F32
        params.flash_attn_type = 0
        params.n_threads = params.n_threads_batch = 2
        self._context: Any = L.llama_init_from_model(self._model, params)
        if adapter is not None:
            lora = L.llama_adapter_lora_init(self._model, str(adapter).encode())
            assert lora, f"llama.cpp refuses {adapter}"
            pointers = (L.llama_adapter_lora_p_ctypes * 1)(lora)
            scales = (ctypes.c_float * 1)(1.0)
            assert L.llama_set_adapters_lora(self._context, pointers, 1, scales) == 0
        self._size = context
        self._vocab = L.llama_vocab_n_tokens(L.llama_model_get_vocab(self._model))

    def logits(self, tokens: Sequence[int]) -> torch.Tensor:
        """float32 [tokens, vocab]: each position's prediction of the next."""
        L.llama_memory_clear(L.llama_get_memory(self._context), True)
        batch = L.llama_batch_init(self._size, 0, 1)
        batch.n_tokens = len(tokens)
        for index, token in enumerate(tokens):
            batch.token[index] = token
            batch.pos[index] = index
            batch.n_seq_id[index] = 1
            batch.seq_id[index][0] = 0
            batch.logits[index] = 1
        assert L.llama_decode(self._context, batch) == 0
        shape = (len(tokens), self._vocab)
        values = np.ctypeslib.as_array(L.llama_get_logits(self._context), shape=shape)
        copied = torch.from_numpy(values.copy())
        L.llama_batch_free(batch)
        return copied

    def close(self) -> None:
        L.llama_free(self._context)
        L.llama_model_free(self._model)
