"""Who has which page of the cache: shared beginnings, copies before writing, nothing leaks."""

from __future__ import annotations

import random

import pytest

from lhama.backends.pytorch.cuda.pages import PAGE, Changes, Pages
from lhama.plugins.backend import BackendError, Copy, Shift, Trim

SLOTS, CONTEXT = 4, 4 * PAGE


class Card:
    """Plays what the card does: a table, and pages that hold one text per position."""

    def __init__(self, pages: Pages) -> None:
        self.table = [-1] * (SLOTS * pages.per_slot)
        self.memory = [[""] * PAGE for _ in range(pages.total)]
        self._per_slot = pages.per_slot

    def apply(self, changes: Changes) -> None:
        for old, new in changes.copies:
            self.memory[new] = list(self.memory[old])
        for place, page in changes.entries.items():
            self.table[place] = page

    def cell(self, slot: int, position: int) -> tuple[int, int]:
        return self.table[slot * self._per_slot + position // PAGE], position % PAGE

    def write(self, slot: int, position: int, text: str) -> None:
        page, at = self.cell(slot, position)
        self.memory[page][at] = text

    def read(self, slot: int, length: int) -> list[str]:
        return [self.memory[p][at] for p, at in (self.cell(slot, i) for i in range(length))]


def test_random_work_reads_back_what_was_written() -> None:
    numbers = random.Random(5)
    pages = Pages(SLOTS, CONTEXT)
    card = Card(pages)
    texts: list[list[str]] = [[] for _ in range(SLOTS)]
    for step in range(3000):
        slot = numbers.randrange(SLOTS)
        match numbers.randrange(4):
            case 0:
                length = numbers.randint(0, len(texts[slot]))
                pages.apply(Trim(slot, length))
                texts[slot] = texts[slot][:length]
            case 1:
                source = numbers.choice([s for s in range(SLOTS) if s != slot])
                length = numbers.randint(0, len(texts[source]))
                pages.apply(Copy(source, slot, length))
                texts[slot] = texts[source][:length]
            case _:
                start = len(texts[slot])
                count = min(numbers.randint(1, 90), CONTEXT - start)
                pages.reserve(slot, start, start + count)
                card.apply(pages.take_changes())
                for position in range(start, start + count):
                    text = f"{step}.{position}"
                    card.write(slot, position, text)
                    texts[slot].append(text)
        card.apply(pages.take_changes())
        for each in range(SLOTS):
            assert card.read(each, len(texts[each])) == texts[each]
    for slot in range(SLOTS):
        pages.apply(Trim(slot, 0))
    assert pages.free == pages.total


def test_a_shared_beginning_takes_no_pages() -> None:
    pages = Pages(SLOTS, CONTEXT)
    pages.reserve(0, 0, 2 * PAGE + 10)
    free = pages.free
    pages.apply(Copy(0, 1, 2 * PAGE + 5))
    assert pages.free == free
    pages.take_changes()
    pages.reserve(1, 2 * PAGE + 5, 2 * PAGE + 6)  # it goes on in the middle of a shared page
    changes = pages.take_changes()
    assert len(changes.copies) == 1
    assert pages.free == free - 1


def test_a_full_pool_says_so_and_a_shift_is_refused() -> None:
    pages = Pages(2, PAGE, total=1)
    pages.reserve(0, 0, 1)
    with pytest.raises(BackendError, match="no free page"):
        pages.reserve(1, 0, 1)
    with pytest.raises(BackendError, match="cannot shift"):
        pages.apply(Shift(0, 0, 1))
