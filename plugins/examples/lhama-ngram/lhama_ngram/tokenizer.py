"""Bytes are the tokens, and one more ends a text."""

from __future__ import annotations

BYTES = 256
END = 256
"""In the training text, where no token is larger than a byte, a zero byte stands for it."""
END_TEXT = "</s>"
VOCAB = 257


class ByteTokenizer:
    """``lhama.plugins.backend.Tokenizer``; stateless, so safe from any thread."""

    vocab = VOCAB
    bos = -1
    add_bos = False
    add_eos = False
    end_tokens = frozenset({END})

    def encode(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        parts = text.split(END_TEXT) if parse_special else [text]
        tokens = list(parts[0].encode("utf-8", "replace"))
        for part in parts[1:]:
            tokens += [END, *part.encode("utf-8", "replace")]
        return tokens

    def piece(self, token: int, *, special: bool = False) -> bytes:
        if token < BYTES:
            return bytes((token,))
        return END_TEXT.encode() if special else b""
