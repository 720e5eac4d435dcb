"""``lhama.plugins.backend.Tokenizer`` from a GGUF vocabulary, equal to llama.cpp's."""

from __future__ import annotations

from typing import Final

from lhama.backends.pytorch import bpe, spm, wordpiece
from lhama.backends.pytorch.vocabulary import Kind, Vocabulary
from lhama.plugins.backend import BackendError
from lhama.plugins.gguf import GGUF

_ALWAYS: Final = (Kind.USER_DEFINED,)
_PARSED: Final = (Kind.USER_DEFINED, Kind.CONTROL, Kind.UNKNOWN)


_SPACES: Final = " \t\n\v\f\r"


class GGUFTokenizer:
    """Splits a text at its special tokens, gives what lies between to the vocabulary's model."""

    def __init__(self, header: GGUF) -> None:
        """``header`` was read with its vocabulary. Raises ``UnsupportedModel``."""
        vocabulary = Vocabulary.read(header)
        self._vocabulary = vocabulary
        kind = header.get_str("tokenizer.ggml.model")
        self._spm, self._wordpiece = kind == "llama", kind == "bert"
        self._model: bpe.BPE | spm.SentencePiece | wordpiece.WordPiece
        if self._spm:
            self._model = spm.SentencePiece(vocabulary)
        elif self._wordpiece:
            self._model = wordpiece.load(header, vocabulary)
        else:
            self._model = bpe.BPE(header, vocabulary)
        default_bos = self._spm or self._wordpiece or bpe.adds_bos(header)
        add_bos = header.get_bool("tokenizer.ggml.add_bos_token", default_bos)
        self.add_bos = add_bos and vocabulary.bos >= 0
        self.add_eos = header.get_bool("tokenizer.ggml.add_eos_token") and vocabulary.eos >= 0
        self.bos = vocabulary.bos
        self.end_tokens = vocabulary.end_tokens
        self.vocab = len(vocabulary.texts)
        self._space_prefix = self._spm and header.get_bool("tokenizer.ggml.add_space_prefix", True)
        self._always = vocabulary.specials(_ALWAYS)
        self._parsed = vocabulary.specials(_PARSED)
        self._pieces: list[bytes | None] = [None] * self.vocab

    def encode(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        # A lone surrogate has no UTF-8 form; it becomes "?".
        text = text.encode("utf-8", "replace").decode()
        tokens = [self.bos] if add_special and (self.add_bos or self._wordpiece) else []
        specials = self._parsed if parse_special else self._always
        fragments = partition(text, specials, self._vocabulary.stripping)
        after_special = True
        for fragment in fragments:
            if isinstance(fragment, int):
                tokens.append(fragment)
                after_special = True
            else:
                prefix = " " if self._space_prefix and after_special else ""
                tokens += self._model.encode(prefix + fragment)
                after_special = False
        if add_special and self._wordpiece:
            tokens.append(self._vocabulary.separator)
        elif add_special and self.add_eos:
            tokens.append(self._vocabulary.eos)
        return tokens

    def piece(self, token: int, *, special: bool = False) -> bytes:
        if not 0 <= token < self.vocab:
            raise BackendError(f"there is no token {token} in a vocabulary of {self.vocab}")
        kind = self._vocabulary.kinds[token]
        if kind in (Kind.CONTROL, Kind.UNKNOWN):
            return _raw(self._vocabulary.texts[token]) if special else b""
        piece = self._pieces[token]
        if piece is None:
            piece = self._pieces[token] = self._render(token, kind)
        return piece

    def _render(self, token: int, kind: int) -> bytes:
        text = self._vocabulary.texts[token]
        if kind == Kind.USER_DEFINED:
            return _raw(text)
        if kind == Kind.NORMAL:
            return self._model.decode(text)
        if kind == Kind.BYTE:
            return bytes([int(text[3:5], 16)])
        return b""


def partition(
    text: str, specials: list[tuple[str, int]], stripping: frozenset[int] = frozenset()
) -> list[str | int]:
    """``text`` cut at the special tokens it holds; where they overlap the longer wins. Spaces behind
    those of ``stripping`` are left out."""
    fragments: list[str | int] = [text] if text else []
    for special, token in specials:
        if special not in text:
            continue
        cut: list[str | int] = []
        for fragment in fragments:
            if isinstance(fragment, int) or special not in fragment:
                cut.append(fragment)
                continue
            for index, part in enumerate(fragment.split(special)):
                if index:
                    cut.append(token)
                    part = part.lstrip(_SPACES) if token in stripping else part
                if part:
                    cut.append(part)
        fragments = cut
    return fragments


def _raw(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
