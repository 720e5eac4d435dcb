"""Which page of the cache holds which positions of a slot. Host only; the card has a copy.

Slots whose texts begin alike share the pages of that beginning. A page that is shared is never
written: whoever goes on in it gets a copy first.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from lhama.plugins.backend import BackendError, Copy, KvOp, Shift, Trim

PAGE: Final = 64
"""Positions; the kernels' too."""


@dataclass(slots=True)
class Changes:
    """What the card has to be told, in this order: pages to copy, then entries of its table."""

    copies: list[tuple[int, int]] = field(default_factory=list)
    entries: dict[int, int] = field(default_factory=dict)
    """Place in the flat table → page."""


class Pages:
    """The table of all slots. ``changes`` gathers what the card does not know yet."""

    def __init__(self, slots: int, context: int, total: int = 0) -> None:
        """``total`` pages in the pool; by default enough for every slot to be full."""
        self.per_slot = -(-context // PAGE)
        self.total = total or slots * self.per_slot
        self.changes = Changes()
        self._tables: list[list[int]] = [[] for _ in range(slots)]
        self._users = [0] * self.total
        self._free = list(range(self.total - 1, -1, -1))

    @property
    def free(self) -> int:
        return len(self._free)

    def apply(self, operation: KvOp) -> None:
        match operation:
            case Trim(slot, length):
                self._cut(slot, length)
            case Copy(source, target, length):
                self._copy(source, target, length)
            case Shift():
                raise BackendError("the PyTorch backend cannot shift its cache")

    def reserve(self, slot: int, start: int, end: int) -> None:
        """Make positions ``start`` … ``end - 1`` of a slot writable. Raises ``BackendError``."""
        table = self._tables[slot]
        at = start // PAGE
        if at < len(table) and self._users[table[at]] > 1:
            old = table[at]
            self._users[old] -= 1
            self._set(slot, at, self._take())
            if start % PAGE:
                self.changes.copies.append((old, table[at]))
        while len(table) * PAGE < end:
            table.append(-1)
            self._set(slot, len(table) - 1, self._take())

    def take_changes(self) -> Changes:
        changes, self.changes = self.changes, Changes()
        return changes

    def _set(self, slot: int, at: int, page: int) -> None:
        self._tables[slot][at] = page
        self.changes.entries[slot * self.per_slot + at] = page

    def _take(self) -> int:
        if not self._free:
            raise BackendError("the cache has no free page left")
        page = self._free.pop()
        self._users[page] = 1
        return page

    def _cut(self, slot: int, length: int) -> None:
        table = self._tables[slot]
        while len(table) > -(-length // PAGE):
            page = table.pop()
            self._users[page] -= 1
            if not self._users[page]:
                self._free.append(page)

    def _copy(self, source: int, target: int, length: int) -> None:
        self._cut(target, 0)
        table = self._tables[target]
        for at, page in enumerate(self._tables[source][: -(-length // PAGE)]):
            self._users[page] += 1
            table.append(page)
            self._set(target, at, page)
