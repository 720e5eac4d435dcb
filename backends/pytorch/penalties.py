"""Repeat, presence and frequency penalties over each slot's last tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from lhama.plugins.backend import Admit, Sampling


@dataclass(slots=True)
class Window:
    """Which of the recent tokens count for the rows of one step; staged on the host."""

    active: bool
    """Whether any row has penalties."""
    rows: torch.Tensor
    """int64 [n]: the penalised rows among the step's sampling rows."""
    cells: torch.Tensor
    """int64 [n, length]: the cells of their recent tokens, padded with the newest one's."""
    weights: torch.Tensor
    """float32 [n, length]: 1 for a token, 0 for padding."""
    settings: torch.Tensor
    """float32 [n, 3]: repeat, presence and frequency penalty."""
    places: torch.Tensor
    """int64 [all sampling rows]: the cell each row's new token goes to."""

    def to(self, device: torch.device) -> Window:
        return Window(
            self.active,
            self.rows.to(device, non_blocking=True),
            self.cells.to(device, non_blocking=True),
            self.weights.to(device, non_blocking=True),
            self.settings.to(device, non_blocking=True),
            self.places.to(device, non_blocking=True),
        )


class Penalties:
    """The last ``context`` tokens of each slot in a ring, on the device.

    How many tokens a slot has accepted is known on the host one step ahead, their ids are not.
    """

    def __init__(
        self, slots: int, context: int, vocab: int, device: torch.device, pinned: bool = False
    ) -> None:
        self._length = context
        self._vocab = vocab
        self._pinned = pinned
        # One cell more than slots need: what nobody asked for can be written there.
        self.recent = torch.zeros(slots * context + 1, dtype=torch.int64, device=device)

    # ------------------------------------------------------------------------- on the host, ahead

    def history(self, admit: Admit) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Stage a new sequence's prompt: cells and tokens; ``None`` if nothing will look back."""
        count = len(admit.history)
        if not count or not penalised(admit.sampling):
            return None
        first = max(0, count - self._length)
        cells = [admit.slot * self._length + place % self._length for place in range(first, count)]
        return self._tensor(cells), self._tensor(admit.history[first:])

    def window(self, rows: Sequence[tuple[int, Sampling, int]]) -> Window:
        """Stage one step's rows, each given as slot, settings and number of accepted tokens."""
        chosen: list[int] = []
        spans: list[range] = []
        for index, (_, sampling, accepted) in enumerate(rows):
            size = sampling.repeat_last_n if sampling.repeat_last_n >= 0 else self._length
            size = min(size, self._length, accepted)
            if size and penalised(sampling):
                chosen.append(index)
                spans.append(range(accepted - size, accepted))
        longest = max(map(len, spans), default=0)
        cells = [
            [
                rows[index][0] * self._length + place % self._length
                for place in (*span, *[span[-1]] * (longest - len(span)))
            ]
            for index, span in zip(chosen, spans, strict=True)
        ]
        weights = [[1.0] * len(span) + [0.0] * (longest - len(span)) for span in spans]
        settings = [
            (s.repeat_penalty, s.presence_penalty, s.frequency_penalty)
            for _, s, _ in (rows[index] for index in chosen)
        ]
        places = [slot * self._length + count % self._length for slot, _, count in rows]
        return Window(
            bool(chosen),
            self._tensor(chosen),
            self._tensor(cells),
            self._tensor(weights, torch.float32),
            self._tensor(settings, torch.float32),
            self._tensor(places),
        )

    def _tensor(self, numbers: Sequence[object], dtype: torch.dtype = torch.int64) -> torch.Tensor:
        return torch.tensor(numbers, dtype=dtype, pin_memory=self._pinned)

    # ------------------------------------------------------------------------------ on the device

    def fill(self, cells: torch.Tensor, tokens: torch.Tensor) -> None:
        """Put what ``history`` staged into the ring; in stream order, before the first row."""
        device = self.recent.device
        self.recent[cells.to(device, non_blocking=True)] = tokens.to(device, non_blocking=True)

    def apply(self, logits: torch.Tensor, window: Window) -> None:
        """Penalise ``logits`` [rows, vocab] in place.

        A token seen in the window: its logit is divided by the repeat penalty if positive, else
        multiplied, then loses ``count · frequency + presence``.
        """
        if not window.active:
            return
        tokens = self.recent[window.cells]
        counts = torch.zeros(len(tokens), self._vocab, device=logits.device)
        counts.scatter_add_(1, tokens, window.weights)
        repeat, presence, frequency = window.settings.split(1, dim=-1)
        rows = logits[window.rows]
        seen = rows.gather(1, tokens)
        seen = torch.where(seen <= 0, seen * repeat, seen / repeat)
        seen -= counts.gather(1, tokens) * frequency + presence
        logits[window.rows] = rows.scatter(1, tokens, seen)

    def accept(self, tokens: torch.Tensor, window: Window) -> None:
        """Remember what the step's rows drew."""
        self.recent[window.places] = tokens


def penalised(sampling: Sampling) -> bool:
    """Whether any penalty does something."""
    return sampling.repeat_last_n != 0 and (
        sampling.repeat_penalty != 1.0
        or sampling.presence_penalty != 0.0
        or sampling.frequency_penalty != 0.0
    )
