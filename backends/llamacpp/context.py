"""A ``llama_context`` and everything done to it; one thread owns it."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any, Final

from lhama.backends.llamacpp.batch import Batch
from lhama.backends.llamacpp.library import L, log, logits_address, np
from lhama.plugins.backend import BackendError, Copy, KvOp, Row, Shift, Trim

if TYPE_CHECKING:
    import numpy.typing as npt

    from lhama.backends.llamacpp.media import MediaReader

_PROBLEMS: Final = {
    1: "no room left in the KV cache",
    2: "aborted",
    -1: "llama.cpp refused the batch",
}


class Context:
    """Decodes batches and edits the KV cache of one model: a stream of cells for each slot.

    llama.cpp's sequence 0 is slot ``first``. ``levels``: steps are filled up to be computed in one
    pass (``leveling``); the cache must be able to forget single positions.
    """

    def __init__(self, pointer: Any, vocab: int, first: int = 0, *, levels: bool = False) -> None:
        self.pointer = pointer
        self._first = first
        self._memory = L.llama_get_memory(pointer)  # None: an encoder, which keeps nothing
        self._cells: int = L.llama_n_ctx_seq(pointer)
        self._vocab = vocab
        self._levels = levels
        self._condemned: set[int] = set()
        self._logits_at = 0
        self._logits: npt.NDArray[np.float32] = np.zeros((0, vocab), np.float32)

    @property
    def can_shift(self) -> bool:
        return self._memory is not None and bool(L.llama_memory_can_shift(self._memory))

    def apply(self, operation: KvOp) -> None:
        """Edit the cache. Raises ``BackendError`` where this model's cache cannot."""
        match operation:
            case Trim(slot, length):
                if slot - self._first in self._condemned:
                    self._overwrite(slot - self._first)
                self._remove(slot - self._first, length, -1)
            case Copy(source, target, length):
                source, target = source - self._first, target - self._first
                if source != target:
                    L.llama_memory_seq_cp(self._memory, source, target, -1, -1)  # all or nothing
                    self._condemned.discard(target)
                self._remove(target, length, -1)
            case Shift(slot, keep, discard):
                sequence = slot - self._first
                self._remove(sequence, keep, keep + discard)
                L.llama_memory_seq_add(self._memory, sequence, keep + discard, -1, -discard)

    def condemn(self, slot: int) -> None:
        """Have a slot's cells written over before another occupant uses them: a value there that
        is no number makes everything computed beside it no number, whether attention looks at it
        or not, since it weighs it with 0."""
        self._condemned.add(slot - self._first)

    def _overwrite(self, sequence: int) -> None:
        every = range(L.llama_n_seq_max(self.pointer))
        sound = next((other for other in every if other not in self._condemned), None)
        if sound is None:  # and so nobody is in any of them
            L.llama_memory_clear(self._memory, True)
            self._condemned.clear()
            return
        L.llama_memory_seq_cp(self._memory, sound, sequence, -1, -1)
        self._condemned.discard(sequence)

    def _remove(self, sequence: int, start: int, end: int) -> None:
        if not L.llama_memory_seq_rm(self._memory, sequence, start, end):
            raise BackendError(
                f"this model's cache cannot forget positions from {start} on: only all of them"
            )

    def decode(self, batch: Batch) -> None:
        """Start to compute ``batch``; on the processor, finish. Raises ``BackendError``."""
        fillers = batch.level(self._cells, self._used) if self._levels else ()
        code = L.llama_decode(self.pointer, batch.struct)
        for filler in fillers:
            self._remove(filler.sequence, filler.position, -1)
        if code:
            self._fail(code)

    def _used(self, sequence: int) -> int:
        return int(L.llama_memory_seq_pos_max(self._memory, sequence)) + 1

    def compute_media(self, reader: MediaReader, row: Row) -> None:
        """Put a row's medium into its slot's cache. Raises ``BackendError``."""
        reader.compute(
            self.pointer, row.slot - self._first, row, int(L.llama_n_batch(self.pointer))
        )

    def encode(self, batch: Batch) -> None:
        """Compute a batch of texts' tokens for ``pooled``. Raises ``BackendError``."""
        if self._memory is None:
            code = L.llama_encode(self.pointer, batch.struct)
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
        L.llama_synchronize(self.pointer)

    def _fail(self, code: int) -> None:
        problem = _PROBLEMS.get(code, "the computation failed")
        raise BackendError(f"{problem} (llama_decode: {code}) {log().errors()}".rstrip())

    def logits(self, count: int) -> npt.NDArray[np.float32]:
        """The last batch's ``count`` rows of logits, [count, vocab], in llama.cpp's own memory."""
        at = logits_address(self.pointer)
        if at != self._logits_at or count > len(self._logits):
            memory = (ctypes.c_float * (count * self._vocab)).from_address(at)
            self._logits = np.ctypeslib.as_array(memory).reshape(count, -1)
            self._logits_at = at
        return self._logits[:count]

    def pooled(self, sequence: int, width: int) -> bytes:
        """The vector of one sequence of the last batch: ``width`` float32."""
        pointer = L.llama_get_embeddings_seq(self.pointer, sequence)
        if not pointer:
            raise BackendError("this model gives no embeddings")
        return ctypes.string_at(pointer, width * ctypes.sizeof(ctypes.c_float))

    def close(self) -> None:
        """Free it; a second call does nothing."""
        if self.pointer is not None:
            L.llama_free(self.pointer)
            self.pointer = None
