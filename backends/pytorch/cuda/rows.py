"""What a step's rows are, on the card and staged on the host: one word for each field and row."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import torch

INTS: Final = ("slots", "positions", "tokens", "top_k", "places", "accepted", "sizes")
FLOATS: Final = ("temperature", "top_p", "min_p", "number", "repeat", "presence", "frequency")
FIELDS: Final = (*INTS, *FLOATS, "ring")
RING: Final = 4
"""Steps whose staging and results are kept apart; two are in flight at most."""


class Rows:
    """Fields of up to ``count`` rows: tensors that graphs were captured with."""

    def __init__(self, count: int, device: torch.device) -> None:
        self.count = count
        count = -(-count // 4) * 4  # fields begin at 16 bytes
        self._words = torch.zeros(len(FIELDS), count, dtype=torch.int32, device=device)
        on_cuda = device.type == "cuda"
        self._staged = torch.zeros(RING, len(FIELDS), count, dtype=torch.int32, pin_memory=on_cuda)
        self._copied: list[torch.cuda.Event | None] = [None] * RING
        self._on_cuda = on_cuda

    def __getitem__(self, name: str) -> torch.Tensor:
        """A field on the card, [rows]."""
        words = self._words[FIELDS.index(name)]
        return words.view(torch.float32) if name in FLOATS else words

    def staging(self, ring: int) -> Staging:
        """The host's side of a step; waits until the copy of its last use has run."""
        copied = self._copied[ring]
        if copied is not None:
            copied.synchronize()
        return Staging(self._staged[ring].numpy())

    def send(self, ring: int) -> None:
        """Enqueue the copy to the card."""
        self._words.copy_(self._staged[ring], non_blocking=True)
        if self._on_cuda:
            event = self._copied[ring] = torch.cuda.Event(blocking=True)
            event.record()


class Staging:
    """Fields by name, as numpy views of pinned memory."""

    def __init__(self, words: np.ndarray[tuple[int, ...], np.dtype[np.int32]]) -> None:
        self.words = words

    def __getitem__(self, name: str) -> np.ndarray[tuple[int, ...], np.dtype[Any]]:
        field = self.words[FIELDS.index(name)]
        kind = np.float32 if name in FLOATS else np.int32
        return np.asarray(field.view(kind))
