"""The model: a text and its suffix array. What comes next is what came next there.

An n-gram model of all orders at once: a suffix array holds every position of the text in the order
of what follows it, so the places where any context occurs lie side by side, found by bisection.
"""

from __future__ import annotations

import math
import mmap
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Sequence

from lhama.plugins import gguf
from lhama_ngram.backend import SUFFIXES, TEXT
from lhama_ngram.tokenizer import BYTES, END, VOCAB

ORDER = 12
"""The longest context looked up, in bytes."""
MOST = 256
"""Occurrences counted of one context: more say nothing new."""
FLOOR = 1e-6
"""The share of what is spread evenly, so that no token is impossible: a grammar may demand any."""


class Model:
    """Maps the weights; reading costs memory only where it is read. Raises ``OSError``."""

    def __init__(self, path: str) -> None:
        tensors = gguf.read(path).tensors
        with open(path, "rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        whole = memoryview(self._map)
        self._views = [
            whole[tensors[name].offset :][: tensors[name].nbytes] for name in (TEXT, SUFFIXES)
        ]
        whole.release()
        self._text = self._views[0]
        self._suffixes = self._views[1].cast("i")
        self.nbytes = sum(view.nbytes for view in self._views)

    def close(self) -> None:
        self._suffixes.release()
        for view in self._views:
            view.release()
        self._map.close()

    def log_probabilities(self, cache: Sequence[int]) -> list[float]:
        """Of every token after ``cache``: the longest contexts that occur weigh most."""
        found = [FLOOR / VOCAB] * VOCAB
        left = 1.0 - FLOOR
        context = bytes(token if token < BYTES else 0 for token in cache[-ORDER:])
        for start in range(len(context) + 1):
            counts = self._followers(context[start:])
            total = sum(counts.values())
            if not total:
                continue
            # A context seen once or twice proves little: what is not believed goes to a shorter one.
            believed = left * total / (total + 1) if start < len(context) else left
            for byte, count in counts.items():
                found[byte or END] += believed * count / total
            left -= believed
        return [math.log(value) for value in found]

    def _followers(self, context: bytes) -> Counter[int]:
        """The bytes that follow ``context`` in the text, and how often they do."""
        size = len(context)

        def prefix(position: int) -> bytes:
            return bytes(self._text[position : position + size])

        first = bisect_left(self._suffixes, context, key=prefix)
        last = bisect_right(self._suffixes, context, lo=first, key=prefix)
        places = self._suffixes[first : last : max(1, (last - first) // MOST)]
        follow = (place + size for place in places)
        return Counter(self._text[place] for place in follow if place < len(self._text))
