"""Brings tensors from the file to the card: read by several threads, copied while more is read."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import torch

from lhama.plugins.backend import BackendError
from lhama.plugins.gguf import GGUF, Tensor

CHUNK: Final = 1 << 25
"""Bytes of a staging buffer."""
BUFFERS: Final = 4
READERS: Final = 4
PIECE: Final = 1 << 22
"""Bytes read by one call."""


class Reader:
    """Reads raw rows of tensors in the order asked for. Use as a context."""

    def __init__(self, header: GGUF, device: torch.device, loaded: Callable[[int], None]) -> None:
        self._path = header.path
        self._device = device
        self._loaded = loaded
        self._pool = ThreadPoolExecutor(READERS, "weights")
        pinned = device.type == "cuda"
        self._buffers = [
            torch.empty(CHUNK, dtype=torch.uint8, pin_memory=pinned) for _ in range(BUFFERS)
        ]
        self._copied: list[torch.cuda.Event | None] = [None] * BUFFERS
        self._turn = 0
        try:
            self._file = os.open(header.path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        except OSError as error:
            raise BackendError(f"cannot read {header.path}: {error.strerror}") from error

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()
        os.close(self._file)

    def rows(self, tensor: Tensor, first: int = 0, count: int = 0) -> Iterator[torch.Tensor]:
        """A tensor's rows, or ``count`` of them from ``first`` on, as uint8 [rows, bytes] on the
        device, in pieces."""
        every = tensor.elements // tensor.shape[0]
        row_bytes = tensor.nbytes // every
        end = first + count if count else every
        most = max(1, CHUNK // row_bytes)
        for at in range(first, end, most):
            rows = min(most, end - at)
            yield self._bring(tensor.offset + at * row_bytes, rows * row_bytes).view(rows, -1)
            self._loaded(rows * row_bytes)

    def _bring(self, offset: int, size: int) -> torch.Tensor:
        if size > CHUNK:  # one row wider than a buffer
            return self._read(torch.empty(size, dtype=torch.uint8), offset).to(self._device)
        self._turn = (self._turn + 1) % BUFFERS
        copied = self._copied[self._turn]
        if copied is not None:
            copied.synchronize()
        buffer = self._read(self._buffers[self._turn][:size], offset)
        if self._device.type != "cuda":
            return buffer.to(self._device, copy=True)
        brought = buffer.to(self._device, non_blocking=True)
        event = self._copied[self._turn] = torch.cuda.Event(blocking=True)
        event.record()
        return brought

    def _read(self, into: torch.Tensor, offset: int) -> torch.Tensor:
        memory = memoryview(into.numpy())
        pieces = range(0, len(memory), PIECE)
        reads = [
            self._pool.submit(self._fill, memory[at : at + PIECE], offset + at) for at in pieces
        ]
        for read in reads:
            read.result()
        return into

    def _fill(self, memory: memoryview, offset: int) -> None:
        done = 0
        while done < len(memory):
            count = os.preadv(self._file, [memory[done:]], offset + done)
            if count <= 0:
                raise BackendError(f"{self._path} was cut short while it was read")
            done += count
