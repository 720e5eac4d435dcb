"""A ``llama_context`` and everything done to it; one thread owns it."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any, Final

from lhama.backends.llamacpp.batch import Batch
from lhama.backends.llamacpp.library import L, log, logits_address, np
from lhama.plugins.backend import BackendError, Copy, KvOp, Shift, Trim

if TYPE_CHECKING:
    import numpy.typing as npt

_PROBLEMS: Final = {
    1: "no room left in the KV cache",
    2: "aborted",
    -1: "llama.cpp refused the batch",
}


class Context:
    """Decodes batches and edits the KV cache of one model.

    ``unified``: one buffer holds all sequences' cells; else each sequence has a buffer of its own.
    """

    def __init__(self, pointer: Any, vocab: int, slots: int, unified: bool) -> None:
        self._pointer = pointer
        self._memory = L.llama_get_memory(pointer)  # None: an encoder, which keeps nothing
        self._vocab = vocab
        self._unified = unified
        self._shared = [0] * slots
        """Below this position a slot's cells may belong to another slot, too."""
        self._logits_at = 0
        self._logits: npt.NDArray[np.float32] = np.zeros((0, vocab), np.float32)

    @property
    def can_shift(self) -> bool:
        return self._memory is not None and bool(L.llama_memory_can_shift(self._memory))

    def apply(self, operation: KvOp) -> None:
        """Edit the cache. Raises ``BackendError`` where this model's cache cannot."""
        match operation:
            case Trim(slot, length):
                self._remove(slot, length, -1)
                self._shared[slot] = min(self._shared[slot], length)
            case Copy(source, target, length) if source == target:
                self.apply(Trim(source, length))
            case Copy(source, target, length) if not self._unified:
                L.llama_memory_seq_cp(self._memory, source, target, -1, -1)  # all or nothing
                self._remove(target, length, -1)
            case Copy(source, target, length):
                self._remove(target, 0, -1)
                L.llama_memory_seq_cp(self._memory, source, target, 0, length)
                self._shared[target] = length
                self._shared[source] = max(self._shared[source], length)
            case Shift(slot, keep, discard):
                self._remove(slot, keep, keep + discard)
                if self._shared[slot] > keep + discard:
                    self._unshare(slot)
                L.llama_memory_seq_add(self._memory, slot, keep + discard, -1, -discard)
                self._shared[slot] = min(self._shared[slot], keep)

    def _remove(self, slot: int, start: int, end: int) -> None:
        if not L.llama_memory_seq_rm(self._memory, slot, start, end):
            raise BackendError(
                f"this model's cache cannot forget positions from {start} on: only all of them"
            )

    def _unshare(self, slot: int) -> None:
        """Give the slot cells of its own: a cell has one position, for all its sequences."""
        size = L.llama_state_seq_get_size(self._pointer, slot)
        state = (ctypes.c_uint8 * size)()
        L.llama_state_seq_get_data(self._pointer, state, size, slot)
        self._remove(slot, 0, -1)
        if not L.llama_state_seq_set_data(self._pointer, state, size, slot):
            raise BackendError("no room left in the KV cache to shift a shared prompt")
        self._shared[slot] = 0

    def decode(self, batch: Batch) -> None:
        """Start to compute ``batch``; on the processor, finish. Raises ``BackendError``."""
        code = L.llama_decode(self._pointer, batch.struct)
        if code:
            self._fail(code)

    def encode(self, batch: Batch) -> None:
        """Compute a batch of texts' tokens for ``pooled``. Raises ``BackendError``."""
        if self._memory is None:
            code = L.llama_encode(self._pointer, batch.struct)
            if code:
                self._fail(code)
        else:
            self.decode(batch)

    def clear(self) -> None:
        """Forget all sequences."""
        if self._memory is not None:
            L.llama_memory_clear(self._memory, False)

    def synchronize(self) -> None:
        """Wait for the last batch; ``logits`` and ``pooled`` do so themselves."""
        L.llama_synchronize(self._pointer)

    def _fail(self, code: int) -> None:
        problem = _PROBLEMS.get(code, "the computation failed")
        raise BackendError(f"{problem} (llama_decode: {code}) {log().errors()}".rstrip())

    def logits(self, count: int) -> npt.NDArray[np.float32]:
        """The last batch's ``count`` rows of logits, [count, vocab], in llama.cpp's own memory."""
        at = logits_address(self._pointer)
        if at != self._logits_at or count > len(self._logits):
            memory = (ctypes.c_float * (count * self._vocab)).from_address(at)
            self._logits = np.ctypeslib.as_array(memory).reshape(count, -1)
            self._logits_at = at
        return self._logits[:count]

    def pooled(self, sequence: int, width: int) -> bytes:
        """The vector of one sequence of the last batch: ``width`` float32."""
        pointer = L.llama_get_embeddings_seq(self._pointer, sequence)
        if not pointer:
            raise BackendError("this model gives no embeddings")
        return ctypes.string_at(pointer, width * ctypes.sizeof(ctypes.c_float))

    def close(self) -> None:
        L.llama_free(self._pointer)
