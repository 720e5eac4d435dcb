"""Text to tokens and back with llama.cpp's own vocabulary; needs no context, so any thread may."""

from __future__ import annotations

import ctypes
from functools import cached_property

from lhama.backends.llamacpp.library import L
from lhama.plugins.backend import BackendError


class LlamaTokenizer:
    """``lhama.plugins.backend.Tokenizer`` over a ``llama_vocab``, which must outlive it."""

    def __init__(self, vocab: int) -> None:
        self._vocab = vocab
        self._size: int = L.llama_vocab_n_tokens(vocab)
        self._pieces: list[bytes | None] = [None] * self._size
        self._special: dict[int, bytes] = {}

    @property
    def vocab(self) -> int:
        return self._size

    @cached_property
    def bos(self) -> int:
        return int(L.llama_vocab_bos(self._vocab))

    @cached_property
    def add_bos(self) -> bool:
        return bool(L.llama_vocab_get_add_bos(self._vocab))

    @cached_property
    def add_eos(self) -> bool:
        return bool(L.llama_vocab_get_add_eos(self._vocab))

    @cached_property
    def end_tokens(self) -> frozenset[int]:
        is_end = L.llama_vocab_is_eog
        return frozenset(token for token in range(self._size) if is_end(self._vocab, token))

    def encode(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        # A lone surrogate has no UTF-8 form; it becomes "?", as llama.cpp never sees bad bytes.
        data = text.encode("utf-8", "replace")
        room = len(data) + 2  # a token stands for at least one byte, mostly; BOS and EOS
        while True:
            buffer = (ctypes.c_int32 * room)()
            count: int = L.llama_tokenize(
                self._vocab, data, len(data), buffer, room, add_special, parse_special
            )
            if count >= 0:
                return buffer[:count]
            if -count <= room:
                raise BackendError(f"llama.cpp cannot tokenize a text of {len(data)} bytes")
            room = -count

    def piece(self, token: int, *, special: bool = False) -> bytes:
        if not 0 <= token < self._size:
            raise BackendError(f"there is no token {token} in a vocabulary of {self._size}")
        if special:
            known = self._special.get(token)
            if known is None:
                known = self._special[token] = self._render(token, True)
            return known
        piece = self._pieces[token]
        if piece is None:
            piece = self._pieces[token] = self._render(token, False)
        return piece

    def _render(self, token: int, special: bool) -> bytes:
        room = 64
        while True:
            buffer = ctypes.create_string_buffer(room)
            count: int = L.llama_token_to_piece(self._vocab, token, buffer, room, 0, special)
            if count >= 0:
                return buffer.raw[:count]
            room = -count
