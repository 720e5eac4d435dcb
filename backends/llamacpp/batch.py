"""A ``llama_batch`` over numpy's memory, written once per step and reused for ever."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

from lhama.backends.llamacpp.library import L, np
from lhama.plugins.backend import DROPPED, BackendError, Row

LONGEST_GAP = 8
"""Idle slots worth computing in vain. One more row costs an H100 0.1 ms at most, another pass over
the weights 1 ms for a model of 135M, 3.6 ms for one of 8B."""


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
        self._rows: tuple[Row, ...] = ()
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
        self._rows, self._starts, self._pending = rows, starts, pending
        self._sampling = [row for row in rows if row.sample]
        self.struct.n_tokens = at

    def bind(self, tokens: Sequence[int]) -> list[Row]:
        """Put in the pending tokens and leave out dropped rows; returns the rows that sample."""
        token = self.token
        for index, at in self._pending:
            token[at] = tokens[index]
        if DROPPED not in tokens:
            return self._sampling
        self._compact([n for n in range(len(self._rows)) if tokens[n] != DROPPED])
        return [row for row in self._rows if row.sample]

    def _compact(self, kept: list[int]) -> None:
        starts, at = [0], 0
        for index in kept:
            start, end = self._starts[index], self._starts[index + 1]
            if start != at:
                for array in self._arrays:
                    array[at : at + end - start] = array[start:end].copy()
            at += end - start
            starts.append(at)
        self._rows = tuple(self._rows[index] for index in kept)
        self._starts = starts
        self.struct.n_tokens = at

    def bridge(self, room: Callable[[int], int]) -> list[tuple[int, int]]:
        """Put a token nobody asked for into the idle slots of short gaps between busy ones.

        llama.cpp computes neighbouring sequences together and reads all weights again after a gap.
        ``room`` gives a sequence's next free position, or -1. Returns sequences and positions to
        clear.
        """
        count: int = self.struct.n_tokens
        slots = [row.slot - self._first for row in self._rows]
        fillers: list[tuple[int, int]] = []
        places: list[int] = []
        for index, (before, after) in enumerate(pairwise(slots)):
            if not 1 < after - before <= LONGEST_GAP + 1:
                continue
            gap = [(slot, room(slot)) for slot in range(before + 1, after)]
            fits = count + len(fillers) + len(gap) <= self.capacity
            if fits and all(position >= 0 for _, position in gap):
                fillers += gap
                places += [self._starts[index + 1]] * len(gap)
        if fillers:
            idle, positions = zip(*fillers, strict=True)
            total = count + len(fillers)
            values: tuple[Any, ...] = (0, positions, idle, 0)  # a token, and no output
            for array, inserted in zip(self._arrays, values, strict=True):
                array[:total] = np.insert(array[:count], places, inserted)
            self.struct.n_tokens = total
        return fillers


def _pointer(array: Any, kind: Any) -> Any:
    return array.ctypes.data_as(ctypes.POINTER(kind))
