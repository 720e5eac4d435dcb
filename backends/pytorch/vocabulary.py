"""A GGUF file's vocabulary: what each token is, reads as, and which of them end a text.

Files say little about their special tokens, so llama.cpp recognises many by their text. The same
texts are recognised here, for both backends must see the same tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from lhama.plugins.backend import UnsupportedModel
from lhama.plugins.gguf import GGUF


class Kind(IntEnum):
    """``tokenizer.ggml.token_type``."""

    UNDEFINED = 0
    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


_END_TEXTS: Final = (
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|flush|>",
    "<|calls|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "</s>",
    "<|eom_id|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "<|end_of_text|>",
    "<end_of_utterance>",
    "<eos>",
    "<turn|>",
    "<|tool_response>",
    "<｜end▁of▁sentence｜>",
    "[e~[",
)

_MIDDLE_TEXTS: Final = {
    "fim_pre": "<|fim_prefix|> <fim-prefix> <fim_prefix> <｜fim▁begin｜> <PRE> ▁<PRE> "
    "<|code_prefix|> <|prefix|>",
    "fim_suf": "<|fim_suffix|> <fim-suffix> <fim_suffix> <｜fim▁hole｜> <SUF> ▁<SUF> "
    "<|code_suffix|> <|suffix|>",
    "fim_mid": "<|fim_middle|> <fim-middle> <fim_middle> <｜fim▁end｜> <MID> ▁<MID> "
    "<|code_middle|> <|middle|>",
    "fim_pad": "<|fim_pad|> <fim-pad> <fim_pad> <PAD> [PAD]",
    "fim_rep": "<|fim_repo|> <|repo_name|> <fim-repo> <REPO> <reponame>",
    "fim_sep": "<|file_sep|>",
}
"""Texts of the tokens that code models fill gaps with."""

_PHI: Final = ("phi-3", "phi3")
_KEEPING: Final = ("<unk>", "<s>", "<|endoftext|>")
"""Phi 3's special tokens that take no spaces with them; llama.cpp knows the model by its name."""

_ENDING_ROLES: Final = ("eos", "eot", "eom", "fim_pad", "fim_rep", "fim_sep")


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Tokens by id."""

    texts: list[str]
    kinds: list[int]
    scores: list[float]
    ids: dict[str, int]
    bos: int
    eos: int
    unknown: int
    separator: int
    """What ends a text of WordPiece."""
    end_tokens: frozenset[int]
    stripping: frozenset[int]
    """Special tokens behind which spaces are left out."""

    @classmethod
    def read(cls, header: GGUF) -> Vocabulary:
        """From a header read with its vocabulary. Raises ``UnsupportedModel``."""
        texts: list[str] = header.get_list("tokenizer.ggml.tokens")
        kinds = header.get_list("tokenizer.ggml.token_type") or [Kind.NORMAL] * len(texts)
        scores = header.get_list("tokenizer.ggml.scores") or [0.0] * len(texts)
        if not texts or not all(isinstance(text, str) for text in texts[:1]):
            raise UnsupportedModel("the file has no vocabulary")
        if len(kinds) < len(texts) or len(scores) < len(texts):
            raise UnsupportedModel("the vocabulary's types or scores are cut short")
        texts = [text or f"[EMPTY_{token}]" for token, text in enumerate(texts)]
        kinds = list(kinds)
        ids = {text: token for token, text in enumerate(texts)}
        defaults = _DEFAULTS.get(header.get_str("tokenizer.ggml.model"), {})
        roles = {
            "bos": _role(header, "bos", defaults.get("bos", 11), len(texts)),
            "eos": _role(header, "eos", defaults.get("eos", 11), len(texts)),
            "unk": _role(header, "unk", defaults.get("unk", -1), len(texts)),
            "sep": _role(header, "sep", defaults.get("sep", -1), len(texts)),
            "eot": _role(header, "eot", -1, len(texts)),
            "eom": _role(header, "eom", -1, len(texts)),
        }
        for role, names in _MIDDLE_TEXTS.items():
            roles[role] = _role(header, role, -1, len(texts))
            if roles[role] < 0:
                roles[role] = next((ids[name] for name in names.split() if name in ids), -1)
                if roles[role] >= 0:
                    kinds[roles[role]] = Kind.CONTROL
        ends = {ids[text] for text in _END_TEXTS if text in ids}
        for token in ends:
            kinds[token] = Kind.CONTROL
        ends |= {roles[role] for role in _ENDING_ROLES} - {-1}
        return cls(
            texts,
            kinds,
            scores,
            ids,
            roles["bos"],
            roles["eos"],
            roles["unk"],
            roles["sep"],
            frozenset(ends),
            _stripping(header, texts, kinds),
        )

    def specials(self, kinds: tuple[Kind, ...]) -> list[tuple[str, int]]:
        """Tokens of these kinds that are looked for in a text, longest first."""
        found = [
            (self.texts[token], token) for token, kind in enumerate(self.kinds) if kind in kinds
        ]
        return sorted(found, key=lambda special: -len(special[0].encode("utf-8", "replace")))


def _stripping(header: GGUF, texts: list[str], kinds: list[int]) -> frozenset[int]:
    name = header.get_str("general.name").lower()
    if not any(phi in name for phi in _PHI):
        return frozenset()
    special = (Kind.CONTROL, Kind.USER_DEFINED, Kind.UNKNOWN)
    return frozenset(
        token
        for token, (text, kind) in enumerate(zip(texts, kinds, strict=False))
        if (kind in special and text not in _KEEPING) or text == "</s>"
    )


def _role(header: GGUF, name: str, default: int, size: int) -> int:
    token = header.get_int(f"tokenizer.ggml.{_KEYS.get(name, name)}_token_id", default)
    return token if 0 <= token < size else default if 0 <= default < size else -1


_DEFAULTS: Final = {
    "llama": {"bos": 1, "eos": 2, "unk": 0},
    "bert": {"bos": 101, "eos": -1, "unk": 100, "sep": 102},
}
"""Of files that do not say, by ``tokenizer.ggml.model``; others are byte-level BPE."""

_KEYS: Final = {"unk": "unknown", "sep": "seperator", "pad": "padding"}
