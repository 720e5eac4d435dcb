"""The slots' samplers, and all rows of a step sampled together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from lhama.backends.llamacpp import chain
from lhama.backends.llamacpp.library import np
from lhama.backends.llamacpp.sampling import RowError, Sampler
from lhama.backends.llamacpp.topk import top_rows
from lhama.plugins.backend import Row, RowResult

if TYPE_CHECKING:
    from lhama.backends.llamacpp.topk import Ids, Logits

FEW = 4
"""Rows from which drawing together pays."""
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
        samplers: list[Sampler | None] = []
        raws: list[Logits] = []
        for row, values in zip(rows, logits, strict=True):
            sampler = self._samplers.get(row.slot)
            if row.masked and row.slot not in masks:
                sampler = None
            samplers.append(sampler)
            raws.append(values if sampler is None else sampler.edit(values, masked=row.masked))
        together = self._draw_together(samplers, logits)
        results = []
        for index, (row, sampler) in enumerate(zip(rows, samplers, strict=True)):
            try:
                if sampler is None:
                    problem = "sampled without a mask" if row.masked else "never admitted"
                    raise RowError(f"the slot was {problem}")
                token = together.get(index)
                if token is None:
                    token = sampler.draw(logits[index])
                if row.masked:
                    token = sampler.allowed(token, logits[index], masks[row.slot])
                drawn = sampler.report(token, raws[index])
            except RowError as error:
                results.append(RowResult(row.slot, row.epoch, 0, error=str(error)))
            else:
                results.append(RowResult(row.slot, row.epoch, *drawn))
        return tuple(results)

    def _draw_together(self, samplers: Sequence[Sampler | None], logits: Logits) -> dict[int, int]:
        """Tokens, by row, of the rows whose whole chain numpy knows and whose logits are sound."""
        alike = [
            (index, sampler.sampling, sampler.uniform)
            for index, sampler in enumerate(samplers)
            if sampler is not None and sampler.uniform is not None
        ]
        if len(alike) < FEW:
            return {}
        ids, values = self._search(logits, max(sampling.top_k for _, sampling, _ in alike))
        sound = np.isfinite(values[:, 0])
        alike = [row for row in alike if sound[row[0]]]
        picked = [index for index, _, _ in alike]
        columns = chain.draw(
            values[picked],
            [sampling for _, sampling, _ in alike],
            [uniform.next() for _, _, uniform in alike],
        )
        return dict(zip(picked, ids[picked, columns].tolist(), strict=True))

    def _search(self, logits: Logits, count: int) -> tuple[Ids, Logits]:
        """The ``count`` largest of every row, largest first."""
        chunks = [logits[at : at + CHUNK] for at in range(0, len(logits), CHUNK)]
        counts = [count] * len(chunks)
        search = map if self._threads is None or len(chunks) == 1 else self._threads.map
        ids, values = zip(*search(top_rows, chunks, counts), strict=True)
        return np.concatenate(ids), np.concatenate(values)

    def close(self) -> None:
        if self._threads is not None:
            self._threads.shutdown()
        for sampler in self._samplers.values():
            sampler.close()
