"""One loaded embedding model: whole texts go through the context, pooled vectors come out."""

from __future__ import annotations

from collections.abc import Callable

from lhama.backends.embedder import Embedder
from lhama.backends.llamacpp.batch import Batch
from lhama.backends.llamacpp.context import Context
from lhama.backends.llamacpp.tokenizer import LlamaTokenizer
from lhama.plugins.backend import Limits, Residency, Row


class LlamaCppEmbedder(Embedder):
    """Embeds by one ``llama_context`` that pools.

    Takes over the context and calls ``free_model`` after it is gone.
    """

    def __init__(
        self,
        context: Context,
        batch: Batch,
        tokenizer: LlamaTokenizer,
        limits: Limits,
        residency: Residency,
        free_model: Callable[[], None],
        width: int,
    ) -> None:
        """``batch`` holds what the context computes at once; ``width``: numbers in a vector, or
        outputs of a classifier."""
        super().__init__(tokenizer, limits, residency)
        self._context = context
        self._free_model = free_model
        self._width = width
        self._batch = batch

    def vectors(self, inputs: list[tuple[int, ...]]) -> list[bytes]:
        self._context.clear()
        size = self._batch.capacity
        if len(inputs[0]) > size:
            for begin in range(0, len(inputs[0]), size):
                self._encode((Row(0, 0, begin, inputs[0][begin : begin + size]),))
        else:
            self._encode(tuple(Row(slot, 0, 0, tokens) for slot, tokens in enumerate(inputs)))
        return [self._context.pooled(slot, self._width) for slot in range(len(inputs))]

    def _encode(self, rows: tuple[Row, ...]) -> None:
        self._batch.fill(rows)
        self._batch.output[: self._batch.struct.n_tokens] = 1  # pooling takes every token's output
        self._context.encode(self._batch)

    def close(self) -> None:
        super().close()
        self._context.close()
        self._free_model()
