"""Keys and values of all layers in pages, and the card's copy of the page table."""

from __future__ import annotations

import torch

from lhama.backends.pytorch.cuda.pages import PAGE, Changes
from lhama.backends.pytorch.hyperparameters import Hyperparameters


class Cache:
    """Per layer [pages, kv_heads, 64, head_dim], float16 or int8 with a scale for each 32.

    The last page and the table's last slot are nobody's: rows that only fill a batch write there.
    """

    def __init__(
        self,
        shape: Hyperparameters,
        slots: int,
        per_slot: int,
        pages: int,
        device: torch.device,
        *,
        quantised: bool = False,
    ) -> None:
        self.quantised = quantised
        self.per_slot = per_slot
        self.nobody = slots
        self.far = (pages + 1) * shape.kv_heads * PAGE * shape.head_dim > 1 << 31
        """Whether 32 bits are too few to count a layer's keys."""
        size = (shape.layers, 2, pages + 1, shape.kv_heads, PAGE, shape.head_dim)
        # Zeros: what a row that fills a batch finds must be numbers.
        dtype = torch.int8 if quantised else torch.float16
        self._lines = torch.zeros(size, dtype=dtype, device=device)
        self._scales = self._lines
        if quantised:
            size = (*size[:-1], shape.head_dim // 32)
            self._scales = torch.zeros(size, dtype=torch.float16, device=device)
        self.tables = torch.zeros(slots + 1, per_slot, dtype=torch.int32, device=device)
        self.tables[slots] = pages

    def layer(self, index: int) -> tuple[torch.Tensor, ...]:
        """Keys, values and their scales; the first two again where there are none."""
        return *self._lines[index].unbind(0), *self._scales[index].unbind(0)

    def apply(self, changes: Changes, pinned: bool) -> None:
        """Enqueue what the page table's keeper decided."""
        for old, new in changes.copies:
            self._lines[:, :, new] = self._lines[:, :, old]
            if self.quantised:
                self._scales[:, :, new] = self._scales[:, :, old]
        if changes.entries:
            entries = [list(changes.entries.keys()), list(changes.entries.values())]
            staged = torch.tensor(entries, dtype=torch.int64, pin_memory=pinned)
            places, pages = staged.to(self.tables.device, non_blocking=True).unbind(0)
            self.tables.view(-1).scatter_(0, places, pages.int())
