"""What a step is made of, on the card and staged on the host: numbers of rows, tokens and chunks.

All fields lie in one run of words, so that one copy brings a step to the card. Graphs were captured
with these places and read whatever lies there.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import torch

RING: Final = 4
"""Steps whose staging and results are kept apart; two are in flight at most."""

_INTS: Final = ("slots", "positions", "tokens", "top_k", "places", "accepted", "sizes")
_FLOATS: Final = ("temperature", "top_p", "min_p", "number", "repeat", "presence", "frequency")
ROW_FIELDS: Final = (*_INTS, *_FLOATS)
TOKEN_FIELDS: Final = ("ids", "token_slots", "token_positions")
BLOCK_FIELDS: Final = ("block_slots", "block_tokens", "block_positions", "block_counts")
_ALIGNED: Final = 4
"""Words: fields begin at 16 bytes."""


class Rows:
    """Fields of up to ``count`` rows and, for steps with prompts, of tokens and their blocks."""

    def __init__(self, count: int, tokens: int, blocks: int, device: torch.device) -> None:
        self.count = count
        self._places: dict[str, slice] = {}
        end = 0
        sizes = {"ring": 1, **dict.fromkeys(ROW_FIELDS, count)}
        more = {**dict.fromkeys(TOKEN_FIELDS, tokens), "outputs": count}
        for name, size in (sizes | more | dict.fromkeys(BLOCK_FIELDS, blocks)).items():
            self._places[name] = slice(end, end + size)
            end += -(-size // _ALIGNED) * _ALIGNED
        self._row_words = self._places["ids"].start
        self._words = torch.zeros(end, dtype=torch.int32, device=device)
        on_cuda = device.type == "cuda"
        staged = torch.zeros(RING, end, dtype=torch.int32, pin_memory=on_cuda)
        short = self._row_words
        self._stages = [Staging(words.numpy(), self._places, short) for words in staged]
        self._whole = [(words, self._words) for words in staged]
        self._short = [(words[:short], self._words[:short]) for words in staged]
        self._copied = [torch.cuda.Event(blocking=True) for _ in range(RING if on_cuda else 0)]

    def __getitem__(self, name: str) -> torch.Tensor:
        """A field on the card."""
        words = self._words[self._places[name]]
        return words.view(torch.float32) if name in _FLOATS else words

    def image(self) -> Staging:
        """Memory of the host's own, laid out like staging memory."""
        return Staging(np.zeros(len(self._words), np.int32), self._places, self._row_words)

    def staging(self, ring: int) -> Staging:
        """The host's side of a step; waits until the copy of its last use has run."""
        if self._copied:
            self._copied[ring].synchronize()
        return self._stages[ring]

    def send(self, ring: int, *, prompts: bool) -> None:
        """Enqueue the copy to the card: of the rows' fields, or of all."""
        source, target = self._whole[ring] if prompts else self._short[ring]
        target.copy_(source, non_blocking=True)
        if self._copied:
            self._copied[ring].record()


class Staging:
    """Fields by name, as numpy views."""

    def __init__(
        self,
        words: np.ndarray[tuple[int, ...], np.dtype[np.int32]],
        places: dict[str, slice],
        row_words: int,
    ) -> None:
        self._rows = words[:row_words]
        self._fields = {
            name: words[place].view(np.float32 if name in _FLOATS else np.int32)
            for name, place in places.items()
        }

    def __getitem__(self, name: str) -> np.ndarray[tuple[int, ...], np.dtype[Any]]:
        return self._fields[name]

    def take_rows(self, other: Staging) -> None:
        """Make the fields of rows equal to another's."""
        self._rows[:] = other._rows
