"""A tokenizer whose counts are plain to read."""

from __future__ import annotations


class WordTokenizer:
    """One token for each word or line end; ``<s>`` is BOS. No model has this vocabulary: it makes
    token counts plain to read in tests of arithmetic."""

    vocab = 10_000
    bos = 1
    add_eos = False
    end_tokens = frozenset({2})

    def __init__(self, *, add_bos: bool = True) -> None:
        self.add_bos = add_bos
        self.words = ["<unk>", "<s>", "</s>"]
        self.calls = 0

    def encode(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        self.calls += 1
        tokens = [1] if add_special and self.add_bos else []
        for word in text.split():
            if word not in self.words:
                self.words.append(word)
            tokens.append(self.words.index(word))
        return tokens

    def piece(self, token: int, *, special: bool = False) -> bytes:
        if token < 3 and not special:
            return b""
        return self.words[token].encode() + (b"" if token < 3 else b" ")
