"""Byte-level BPE: words by a regular expression, then merges by rank; by ``tokenizers``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from tokenizers import Regex, Tokenizer, models, pre_tokenizers

from lhama.backends.pytorch.vocabulary import Vocabulary
from lhama.plugins.backend import UnsupportedModel
from lhama.plugins.gguf import GGUF


@dataclass(frozen=True, slots=True)
class Splitting:
    """How one kind of pre-tokenizer cuts text into words: its patterns, one after the other."""

    patterns: tuple[str, ...]
    whole_words: bool = False
    """A word that is a token is not taken apart and merged."""
    add_bos: bool = False
    """Unless the file says otherwise."""


_GPT2: Final = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_CONTRACTED: Final = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{DIGITS}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

_gpt2 = Splitting((_GPT2,))
_digits = Splitting((r"\p{N}", _GPT2))
_llama3 = _CONTRACTED.replace("{DIGITS}", "{1,3}")
_qwen2 = Splitting((_CONTRACTED.replace("{DIGITS}", ""),))
_plain = Splitting((r"[\p{P}\$\+<=>\^~\|]+", _GPT2, r"\p{N}+", "[0-9][0-9][0-9]"))

SPLITTINGS: Final[dict[str, Splitting]] = {
    "": _plain,
    "default": _plain,
    **dict.fromkeys(("gpt-2", "phi-2", "mpt", "olmo", "jais", "exaone4"), _gpt2),
    **dict.fromkeys(("smollm", "starcoder", "refact", "command-r", "codeshell"), _digits),
    **dict.fromkeys(
        ("llama3", "llama-v3", "llama-bpe", "falcon3", "pixtral"),
        Splitting((_llama3,), whole_words=True, add_bos=True),
    ),
    **dict.fromkeys(("dbrx", "smaug-bpe"), Splitting((_llama3,))),
    **dict.fromkeys(("qwen2", "deepseek-r1-qwen", "stablelm2"), _qwen2),
}
"""By ``tokenizer.ggml.pre``."""


def splitting(header: GGUF) -> Splitting:
    """Raises ``UnsupportedModel`` for a pre-tokenizer that is not known."""
    name = header.get_str("tokenizer.ggml.pre")
    try:
        return SPLITTINGS[name]
    except KeyError:
        raise UnsupportedModel(
            f"the PyTorch backend does not know the pre-tokenizer {name!r}"
        ) from None


def adds_bos(header: GGUF) -> bool:
    return splitting(header).add_bos


class BPE:
    """A vocabulary of byte-level tokens and its merges."""

    def __init__(self, header: GGUF, vocabulary: Vocabulary) -> None:
        how = splitting(header)
        merges = [_pair(merge) for merge in header.get_list("tokenizer.ggml.merges")]
        try:
            model = models.BPE(vocabulary.ids, merges, ignore_merges=how.whole_words)
        except Exception as error:  # the library raises nothing narrower
            raise UnsupportedModel(f"the vocabulary's merges make no sense: {error}") from error
        self._tokenizer = Tokenizer(model)
        self._tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                *(pre_tokenizers.Split(Regex(p), "isolated") for p in how.patterns),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )

    def encode(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def decode(self, text: str) -> bytes:
        """The bytes that a token's letters stand for; other letters stand for themselves."""
        try:
            return bytes(_BYTES[letter] for letter in text)
        except KeyError:
            return text.encode("utf-8", "surrogateescape")


def _pair(merge: object) -> tuple[str, str]:
    if not isinstance(merge, str) or " " not in merge[1:]:
        raise UnsupportedModel(f"the merge {merge!r} makes no sense")
    at = merge.index(" ", 1)
    return merge[:at], merge[at + 1 :]


def _byte_letters() -> dict[str, int]:
    """GPT-2's printable letter for each byte: printable Latin-1 is itself, the rest from U+0100."""
    own = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in own]
    letters = {chr(byte): byte for byte in own}
    return letters | {chr(0x100 + index): byte for index, byte in enumerate(others)}


_BYTES: Final = _byte_letters()
