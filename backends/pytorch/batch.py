"""One step's rows as flat tensors: every row's tokens one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from lhama.plugins.backend import Row


@dataclass(frozen=True, slots=True)
class Span:
    """A row's share of the flat batch."""

    slot: int
    position: int
    """Of its first token in the slot."""
    begin: int
    end: int
    origin: int = 0
    """First position of the slot that belongs to its sequence."""

    @property
    def length(self) -> int:
        """Positions its last token sees: all before it, and itself."""
        return self.position + self.end - self.begin


@dataclass(slots=True)
class Batch:
    """Staged on the host by ``prepare_next``; ``to`` brings it to the device."""

    rows: tuple[Row, ...]
    spans: tuple[Span, ...]
    ids: torch.Tensor
    """int64 [tokens]; 0 where the token is not known yet."""
    sources: torch.Tensor
    """int64 [tokens]: the slot whose last token belongs here, -1 where ``ids`` has it."""
    positions: torch.Tensor
    """int64 [tokens]."""
    cells: torch.Tensor
    """int64 [tokens]: where keys and values go."""
    outputs: torch.Tensor
    """int64 [sampling rows]: the flat indices of the tokens whose logits are wanted."""
    pending: tuple[tuple[int, int], ...]
    """Rows without tokens: (index of the row, index of its token)."""

    @classmethod
    def build(cls, rows: Sequence[Row], context: int, pinned: bool = False) -> Batch:
        spans: list[Span] = []
        ids: list[int] = []
        sources: list[int] = []
        outputs: list[int] = []
        pending: list[tuple[int, int]] = []
        for index, row in enumerate(rows):
            begin = len(ids)
            if row.tokens:
                ids += row.tokens
                sources += [-1] * len(row.tokens)
            else:
                pending.append((index, begin))
                ids.append(0)
                sources.append(row.slot)
            spans.append(Span(row.slot, row.position, begin, len(ids)))
            if row.sample:
                outputs.append(len(ids) - 1)
        positions = [p for s in spans for p in range(s.position, s.length)]
        starts = [s.slot * context for s in spans for _ in range(s.begin, s.end)]
        cells = [start + position for start, position in zip(starts, positions, strict=True)]

        def stage(numbers: list[int]) -> torch.Tensor:
            return torch.tensor(numbers, dtype=torch.int64, pin_memory=pinned)

        return cls(
            tuple(rows),
            tuple(spans),
            stage(ids),
            stage(sources),
            stage(positions),
            stage(cells),
            stage(outputs),
            tuple(pending),
        )

    def bind(self, tokens: Sequence[int]) -> None:
        """Fill in the pending tokens; ``tokens`` has one entry for each row."""
        for row, index in self.pending:
            self.ids[index] = tokens[row]
            self.sources[index] = -1

    def to(self, device: torch.device) -> Batch:
        """The same batch on the device; the copies are enqueued, not waited for."""

        def move(tensor: torch.Tensor) -> torch.Tensor:
            return tensor.to(device, non_blocking=True)

        return Batch(
            self.rows,
            self.spans,
            move(self.ids),
            move(self.sources),
            move(self.positions),
            move(self.cells),
            move(self.outputs),
            self.pending,
        )
