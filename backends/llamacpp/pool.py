"""The slots' samplers, and all rows of a step sampled together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from lhama.backends.llamacpp.sampling import RowError, Sampler
from lhama.backends.llamacpp.topk import top_rows
from lhama.plugins.backend import Row, RowResult

if TYPE_CHECKING:
    from lhama.backends.llamacpp.topk import Ids, Logits

CHUNK = 8
"""Rows whose top-k is found at once: their logits stay in a core's cache."""
THREADS = 4
"""Threads that search chunks at the same time; numpy lets go of the interpreter meanwhile."""


class SamplerPool:
    """One sampler for each slot.

    ``parallel``: threads share the search for the largest logits; of no use where the processor is
    busy with the model itself.
    """

    def __init__(self, *, parallel: bool) -> None:
        self._samplers: dict[int, Sampler] = {}
        self._threads = ThreadPoolExecutor(THREADS, "llama-sampling") if parallel else None

    def install(self, slot: int, sampler: Sampler) -> None:
        before = self._samplers.get(slot)
        if before is not None:
            before.close()
        self._samplers[slot] = sampler

    def sample(
        self, rows: Sequence[Row], logits: Logits, masks: Mapping[int, bytes]
    ) -> tuple[RowResult, ...]:
        """One result for each row; ``logits``: float32, [rows, vocab], overwritten."""
        raws: list[Logits | RowError] = []
        most = 0
        for row, values in zip(rows, logits, strict=True):
            sampler = self._samplers.get(row.slot)
            if sampler is None or (row.masked and row.slot not in masks):
                problem = "never admitted" if sampler is None else "sampled without a mask"
                raws.append(RowError(f"the slot was {problem}"))
                continue
            raws.append(sampler.edit(values, masks[row.slot] if row.masked else None))
            most = max(most, sampler.candidates)
        found = self._search(logits, most)
        results = []
        for index, (row, raw) in enumerate(zip(rows, raws, strict=True)):
            try:
                if isinstance(raw, RowError):
                    raise raw
                sampler = self._samplers[row.slot]
                count = sampler.candidates
                ids = found[index][:count] if count else None
                token, logprob, best = sampler.draw(logits[index], raw, ids, masked=row.masked)
            except RowError as error:
                results.append(RowResult(row.slot, row.epoch, 0, error=str(error)))
            else:
                results.append(RowResult(row.slot, row.epoch, token, logprob, best))
        return tuple(results)

    def _search(self, logits: Logits, count: int) -> list[Ids]:
        """The ``count`` largest of every row, largest first."""
        if not count:
            return []
        chunks = [logits[at : at + CHUNK] for at in range(0, len(logits), CHUNK)]
        if self._threads is None or len(chunks) == 1:
            return [ids for chunk in chunks for ids in top_rows(chunk, count)]
        parts = self._threads.map(top_rows, chunks, [count] * len(chunks))
        return [ids for part in parts for ids in part]

    def close(self) -> None:
        if self._threads is not None:
            self._threads.shutdown()
        for sampler in self._samplers.values():
            sampler.close()
