"""WordPiece as llama.cpp does it: the longest token that fits, from the front of each word.

GGUF vocabularies mark the beginning of a word by ▁, and what goes on one by nothing. Compared with
the tokenizers that models come with, llama.cpp keeps but the first letter of a letter's
decomposition and drops spacing marks, so that Korean and Indic texts become other tokens. The
same is done here, for both backends must see the same tokens.
"""

from __future__ import annotations

import unicodedata
from functools import lru_cache
from typing import Final

from lhama.backends.pytorch.vocabulary import Vocabulary
from lhama.plugins.backend import UnsupportedModel
from lhama.plugins.gguf import GGUF

START: Final = "▁"
"""What a word's first token begins with."""

_REMEMBERED: Final = 1 << 15
_LONGEST_REMEMBERED: Final = 64

_SPACES: Final = frozenset("\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000") | {
    chr(code) for code in range(0x2000, 0x200B)
}
_IDEOGRAPHS: Final = (
    (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F),
    (0x2B920, 0x2CEAF),
    (0x2F800, 0x2FA1F),
)
"""Each is a word of its own."""


class WordPiece:
    """Words by spaces, punctuation and ideographs; then tokens of one vocabulary."""

    def __init__(self, vocabulary: Vocabulary, *, lowercase: bool, strip_accents: bool) -> None:
        self._ids = vocabulary.ids
        self._unknown = vocabulary.unknown
        self._longest = max(map(len, vocabulary.texts))
        self._letters = _Letters(lowercase, strip_accents)
        self._remembered = lru_cache(_REMEMBERED)(self._split)

    def encode(self, text: str) -> list[int]:
        tokens: list[int] = []
        for word in text.translate(self._letters).split():
            short = len(word) <= _LONGEST_REMEMBERED
            tokens += self._remembered(word) if short else self._split(word)
        return tokens

    def decode(self, text: str) -> bytes:
        return text.replace(START, " ").encode("utf-8", "surrogateescape")

    def _split(self, word: str) -> tuple[int, ...]:
        """A word's tokens, or the unknown one for a word that is not made of tokens."""
        word = START + word
        tokens: list[int] = []
        at = 0
        while at < len(word):
            for end in range(min(len(word), at + self._longest), at, -1):
                token = self._ids.get(word[at:end])
                if token is not None:
                    tokens.append(token)
                    at = end
                    break
            else:
                return (self._unknown,)
        return tuple(tokens)


def load(header: GGUF, vocabulary: Vocabulary) -> WordPiece:
    """Raises ``UnsupportedModel`` for a vocabulary without the tokens every text needs."""
    if min(vocabulary.bos, vocabulary.separator, vocabulary.unknown) < 0:
        raise UnsupportedModel("the vocabulary has no [CLS], [SEP] or [UNK]")
    lowercase = header.get_bool("tokenizer.ggml.normalizer.lowercase", True)
    accents = header.get_bool("tokenizer.ggml.normalizer.strip_accents", lowercase)
    return WordPiece(vocabulary, lowercase=lowercase, strip_accents=accents)


class _Letters(dict[int, str]):
    """What each code point becomes before words are cut; filled as letters are met."""

    def __init__(self, lowercase: bool, strip_accents: bool) -> None:
        super().__init__()
        self._lowercase = lowercase
        self._strip_accents = strip_accents

    def __missing__(self, code: int) -> str:
        letter = self[code] = self._letter(chr(code))
        return letter

    def _letter(self, letter: str) -> str:
        if self._strip_accents:
            letter = unicodedata.normalize("NFD", letter)[0]
        code, category = ord(letter), unicodedata.category(letter)
        if letter in _SPACES:
            return " "
        if code in (0, 0xFFFD) or category in ("Cc", "Cf", "Co", "Cs"):
            return ""
        if self._strip_accents and category[0] == "M":
            return ""
        if self._lowercase:
            letter = letter.lower()[0]
        symbol = code < 0x7F and category[0] == "S"
        if category[0] == "P" or symbol or any(a <= code <= b for a, b in _IDEOGRAPHS):
            return f" {letter} "
        return letter
