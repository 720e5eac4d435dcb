"""Whether overlapping pays on this machine: where the model computes on the processor, preparing
the next step takes cores from this one. The first steps of a model try both orders in turn."""

from __future__ import annotations

from statistics import median
from typing import Literal

Order = Literal["device", "host", "off"]

BLOCK = 24
"""Steps of one order before it is the other's turn."""
LEAST = 16
"""Steps of each order, with equally many rows, that make a verdict."""
MARGIN = 0.01
"""Overlapping stays unless the twin is faster by more: it is the order that is tested most."""


class Trial:
    """ABBA blocks of the overlapped order and its twin; all orders give the same tokens."""

    def __init__(self, overlapped: Order) -> None:
        self.order: Order = overlapped
        """The order to use now."""
        self.verdict = ""
        """In words, once there is one."""
        self._overlapped = overlapped
        self._blocks: list[Order] = [overlapped, "off", "off", overlapped]
        self._left = BLOCK
        self._times: dict[tuple[Order, int], list[int]] = {}

    def took(self, rows: int, nanoseconds: int) -> None:
        """A step of ``rows`` generated tokens took so long, from the last commit to its own."""
        if self.verdict:
            return
        self._times.setdefault((self.order, rows), []).append(nanoseconds)
        self._left -= 1
        if self._left:
            return
        self._left = BLOCK
        self._blocks.append(self._blocks.pop(0))
        self.order = self._blocks[0]
        if self.order == self._overlapped and self._blocks[1] == "off":
            self._judge()

    def _judge(self) -> None:
        pairs = [
            (median(times), median(twin), rows)
            for (order, rows), times in self._times.items()
            if order != "off" and len(times) >= LEAST
            for twin in [self._times.get(("off", rows), [])]
            if len(twin) >= LEAST
        ]
        if not pairs:
            return  # the batch changed all the time: go on
        ratio = median(off / overlapped for overlapped, off, _ in pairs)
        self.order = self._overlapped if ratio > 1 - MARGIN else "off"
        rows = " and ".join(str(rows) for _, _, rows in pairs)
        self.verdict = (
            f"overlapping takes {1 / ratio:.3f} times as long as one half after the other "
            f"(steps of {rows} rows): {'kept' if self.order != 'off' else 'turned off'}"
        )
