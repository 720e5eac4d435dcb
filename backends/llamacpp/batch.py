"""A ``llama_batch`` over numpy's memory, written once per step and reused for ever."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

from lhama.backends.llamacpp.leveling import Filler, Span, fillers
from lhama.backends.llamacpp.library import L, np
from lhama.plugins.backend import DROPPED, BackendError, Row


class Batch:
    """Room for ``capacity`` tokens; ``struct`` is what ``llama_decode`` takes, by value.

    llama.cpp's sequence 0 is slot ``first``.
    """

    def __init__(self, capacity: int, first: int = 0) -> None:
        self.capacity = capacity
        self._first = first
        self.token = np.zeros(capacity, np.int32)
        self.position = np.zeros(capacity, np.int32)
        self.sequence = np.zeros(capacity, np.int32)
        self.output = np.zeros(capacity, np.int8)
        self._arrays: tuple[Any, ...] = (self.token, self.position, self.sequence, self.output)
        self._one = np.ones(capacity, np.int32)
        self._counting = np.arange(capacity, dtype=np.int32)
        # llama_batch.seq_id points to one pointer per token: each to its place in ``sequence``.
        step = np.uintp(self.sequence.itemsize)
        self._pointers = self.sequence.ctypes.data + np.arange(capacity, dtype=np.uintp) * step
        self.rows: tuple[Row, ...] = ()
        """Of the step, in its order; those that were dropped are not in it any more."""
        self._sampling: list[Row] = []
        self._starts: list[int] = []
        self._pending: list[tuple[int, int]] = []
        self.struct = L.llama_batch(
            n_tokens=0,
            token=_pointer(self.token, L.llama_token),
            embd=None,
            pos=_pointer(self.position, L.llama_pos),
            n_seq_id=_pointer(self._one, ctypes.c_int32),
            seq_id=_pointer(self._pointers, ctypes.POINTER(L.llama_seq_id)),
            logits=_pointer(self.output, ctypes.c_int8),
        )

    def fill(self, rows: tuple[Row, ...]) -> None:
        """Write everything of ``rows`` but the tokens not known yet."""
        token, position = self.token, self.position
        sequence, output = self.sequence, self.output
        starts: list[int] = []
        pending: list[tuple[int, int]] = []
        at = 0
        for index, row in enumerate(rows):
            known = row.tokens
            count = len(known)
            starts.append(at)
            end = at + (count or 1)
            if end > self.capacity:
                raise BackendError(f"a step holds more than {self.capacity} tokens")
            if count > 1:
                token[at:end] = known
                np.add(self._counting[:count], row.position, out=position[at:end])
                sequence[at:end] = row.slot - self._first
                output[at:end] = 0
                output[end - 1] = row.sample
            else:
                if known:
                    token[at] = known[0]
                else:
                    pending.append((index, at))
                position[at] = row.position
                sequence[at] = row.slot - self._first
                output[at] = row.sample
            at = end
        starts.append(at)
        self.rows, self._starts, self._pending = rows, starts, pending
        self._sampling = [row for row in rows if row.sample]
        self.struct.n_tokens = at

    def bind(self, tokens: Sequence[int]) -> list[Row]:
        """Put in the pending tokens and leave out dropped rows; returns the rows that sample."""
        token = self.token
        for index, at in self._pending:
            token[at] = tokens[index]
        if DROPPED not in tokens:
            return self._sampling
        self._compact([n for n in range(len(self.rows)) if tokens[n] != DROPPED])
        return [row for row in self.rows if row.sample]

    def _compact(self, kept: list[int]) -> None:
        starts, at = [0], 0
        for index in kept:
            start, end = self._starts[index], self._starts[index + 1]
            if start != at:
                for array in self._arrays:
                    array[at : at + end - start] = array[start:end].copy()
            at += end - start
            starts.append(at)
        self.rows = tuple(self.rows[index] for index in kept)
        self._starts = starts
        self.struct.n_tokens = at

    def level(self, cells: int, used: Callable[[int], int]) -> list[Filler]:
        """Fill the step up so that it is computed in one pass (``leveling``); after ``bind``.

        Returns what the cache shall forget afterwards.
        """
        count: int = self.struct.n_tokens
        spans = [
            Span(row.slot - self._first, start, end, row.position)
            for row, (start, end) in zip(self.rows, pairwise(self._starts), strict=True)
        ]
        found = fillers(spans, self.capacity - count, cells, used)
        if found:
            places = np.repeat([f.at for f in found], [f.size for f in found])
            sequences = np.repeat([f.sequence for f in found], [f.size for f in found])
            positions = np.concatenate([np.arange(f.position, f.position + f.size) for f in found])
            total = count + len(places)
            values: tuple[Any, ...] = (0, positions, sequences, 0)  # a token, and no output
            for array, inserted in zip(self._arrays, values, strict=True):
                array[:total] = np.insert(array[:count], places, inserted)
            self.struct.n_tokens = total
        return found


def _pointer(array: Any, kind: Any) -> Any:
    return array.ctypes.data_as(ctypes.POINTER(kind))
