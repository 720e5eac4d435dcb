"""SentencePiece's BPE: neighbours merge while they make a token, the best score first.

``tokenizers`` wants a list of merges, which GGUF files of this kind do not hold; making one takes
seconds for Gemma's 262,144 tokens and settles ties between equal scores differently. So the merge
loop is here. It works word by word and remembers words, as text repeats them.
"""

from __future__ import annotations

import heapq
from functools import lru_cache
from typing import Final

from lhama.backends.pytorch.vocabulary import Vocabulary

SPACE: Final = "▁"
"""What a space is in the vocabulary."""

_REMEMBERED: Final = 1 << 15
_LONGEST_REMEMBERED: Final = 64


class SentencePiece:
    """Merges by score over one vocabulary."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._ids = vocabulary.ids
        self._scores = vocabulary.scores
        self._bytes = [vocabulary.ids.get(f"<0x{byte:02X}>", -1) for byte in range(256)]
        # Where no token has a space behind this letter, no merge crosses the gap between them.
        self._sticky = {text[at - 1] for text in vocabulary.texts for at in _inner_spaces(text)}
        self._remembered = lru_cache(_REMEMBERED)(self._merge)

    def encode(self, text: str) -> list[int]:
        tokens: list[int] = []
        for word in self._words(text.replace(" ", SPACE)):
            short = len(word) <= _LONGEST_REMEMBERED
            tokens += self._remembered(word) if short else self._merge(word)
        return tokens

    def decode(self, text: str) -> bytes:
        return text.replace(SPACE, " ").encode("utf-8", "surrogateescape")

    def _words(self, text: str) -> list[str]:
        """Cut ``text`` where nothing merges anyway: before spaces."""
        words: list[str] = []
        begin = 0
        at = text.find(SPACE, 1)
        while at > 0:
            if text[at - 1] not in self._sticky:
                words.append(text[begin:at])
                begin = at
            at = text.find(SPACE, at + 1)
        if begin < len(text):
            words.append(text[begin:])
        return words

    def _merge(self, word: str) -> tuple[int, ...]:
        """Token ids of a word. Symbols are a linked list; the heap holds possible merges."""
        symbols = list(word)
        before = list(range(-1, len(symbols) - 1))
        after = [*range(1, len(symbols)), -1]
        heap: list[tuple[float, int, int, str]] = []

        def consider(left: int, right: int) -> None:
            if left >= 0 and right >= 0:
                text = symbols[left] + symbols[right]
                token = self._ids.get(text)
                if token is not None:
                    heapq.heappush(heap, (-self._scores[token], left, right, text))

        for index in range(1, len(symbols)):
            consider(index - 1, index)
        while heap:
            _, left, right, text = heapq.heappop(heap)
            # Either may have merged with something else since.
            if (
                not symbols[left]
                or not symbols[right]
                or len(text) != len(symbols[left]) + len(symbols[right])
            ):
                continue
            symbols[left], symbols[right] = text, ""
            after[left] = after[right]
            if after[right] >= 0:
                before[after[right]] = left
            consider(before[left], left)
            consider(left, after[left])
        tokens: list[int] = []
        for symbol in symbols:
            if symbol:
                token = self._ids.get(symbol)
                tokens += self._spell(symbol) if token is None else [token]
        return tuple(tokens)

    def _spell(self, symbol: str) -> list[int]:
        """A letter that is no token, byte by byte."""
        return [self._bytes[byte] for byte in symbol.encode() if self._bytes[byte] >= 0]


def _inner_spaces(text: str) -> list[int]:
    """Where ``text`` has a space that is not its first letter."""
    found: list[int] = []
    at = text.find(SPACE, 1)
    while at > 0:
        found.append(at)
        at = text.find(SPACE, at + 1)
    return found
