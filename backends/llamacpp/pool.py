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
    from lhama.backends.llamacpp.topk import Bounds, Ids, Logits

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
        alike = {
            index: (sampler, sampler.uniform)
            for index, sampler in enumerate(samplers)
            if sampler is not None and sampler.uniform is not None
        }
        if len(alike) < FEW:
            return {}
        rows = logits if len(alike) == len(logits) else logits[list(alike)]
        most = max(sampler.sampling.top_k for sampler, _ in alike.values())
        guesses = np.array([sampler.bound.value for sampler, _ in alike.values()], np.float32)
        ids, values = self._search(rows, most, guesses)
        for (sampler, _), least in zip(alike.values(), values[:, -1].tolist(), strict=True):
            sampler.bound.learn(least)
        sound = np.isfinite(values[:, 0])
        picked = [index for index, ok in zip(alike, sound.tolist(), strict=True) if ok]
        columns = chain.draw(
            values[sound],
            [alike[index][0].sampling for index in picked],
            [alike[index][1].next() for index in picked],
        )
        tokens = ids[sound][np.arange(len(picked)), columns].tolist()
        return dict(zip(picked, tokens, strict=True))

    def _search(self, rows: Logits, count: int, guesses: Bounds) -> tuple[Ids, Logits]:
        """The ``count`` largest of every row, largest first."""
        if self._threads is None or len(rows) <= CHUNK:
            return top_rows(rows, count, guesses)
        starts = range(0, len(rows), CHUNK)
        parts = self._threads.map(
            lambda at: top_rows(rows[at : at + CHUNK], count, guesses[at : at + CHUNK]), starts
        )
        ids, values = zip(*parts, strict=True)
        return np.concatenate(ids), np.concatenate(values)

    def close(self) -> None:
        if self._threads is not None:
            self._threads.shutdown()
        for sampler in self._samplers.values():
            sampler.close()
