"""Bytes as tokens, and four control tokens."""

from __future__ import annotations

import re

BOS, EOS, TURN_START, TURN_END = 256, 257, 258, 259
CONTROL = {"<s>": BOS, "</s>": EOS, "<|im_start|>": TURN_START, "<|im_end|>": TURN_END}
VOCAB = 260

_TEXT_OF = {token: text for text, token in CONTROL.items()}
_SPLIT = re.compile("(" + "|".join(map(re.escape, CONTROL)) + ")")


class ReferenceTokenizer:
    """One token a byte of UTF-8."""

    vocab = VOCAB
    bos = BOS
    add_bos = False
    add_eos = False
    end_tokens = frozenset({EOS, TURN_END})

    def encode(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        parts = _SPLIT.split(text) if parse_special else [text]
        tokens: list[int] = []
        for part in parts:
            if parse_special and part in CONTROL:
                tokens.append(CONTROL[part])
            else:
                tokens.extend(part.encode("utf-8", "replace"))
        return tokens

    def piece(self, token: int, *, special: bool = False) -> bytes:
        if token < 256:
            return bytes((token,))
        return _TEXT_OF[token].encode() if special else b""
