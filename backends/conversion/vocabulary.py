"""A checkpoint's vocabulary: from ``tokenizer.json``, ``tokenizer.model`` or ``vocab.txt``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from gguf import GGUFWriter, SpecialVocab
from gguf.constants import TokenType

from lhama.backends.conversion import jsonfile, pretokenizers
from lhama.plugins.backend import UnsupportedModel

_SPACE: Final = "\N{LOWER ONE EIGHTH BLOCK}"
"""Stands for a space, or a word's beginning, in SentencePiece and in llama.cpp's WordPiece."""

_ADDED_SCORE: Final = -1000.0  # merges never make an added token
_PAD_SCORE: Final = -10000.0


@dataclass
class Vocabulary:
    """Tokens by id, as GGUF wants them."""

    model: str
    """``gpt2`` (byte-level BPE), ``llama`` (SentencePiece) or ``bert`` (WordPiece)."""
    pre: str = "default"
    tokens: list[str] = field(default_factory=list)
    types: list[int] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    """Of SentencePiece; the higher, the sooner a token is merged."""
    space_prefix: bool | None = None
    """Whether a text gets a space in front; ``None`` leaves it to the reader."""
    special: dict[str, int] = field(default_factory=dict)
    """Ids that the vocabulary itself names, by ``bos``, ``eos`` …; the configs' go first."""

    def fit(self, size: int) -> None:
        """As many tokens as the embedding has rows: unused ones added, useless ones dropped."""
        for index in range(len(self.tokens), size):
            self.set(index, f"[PAD{index}]", TokenType.UNUSED, _PAD_SCORE)
        del self.tokens[size:], self.types[size:], self.scores[size:]

    def set(self, index: int, text: str, kind: int, score: float) -> None:
        """Replace a token, or add one behind the last."""
        if index == len(self.tokens):
            self.tokens.append("")
            self.types.append(0)
            self.scores.append(0.0)
        self.tokens[index], self.types[index], self.scores[index] = text, kind, score

    def write(self, writer: GGUFWriter, folder: Path) -> None:
        """Into the header, special tokens and chat template too."""
        writer.add_tokenizer_model(self.model)
        writer.add_tokenizer_pre(self.pre)
        # Bytes: a lone surrogate in a stranger's vocabulary must not end in an exception.
        writer.add_token_list([token.encode("utf-8", "replace") for token in self.tokens])
        writer.add_token_types(self.types)
        if self.model == "llama":
            writer.add_token_scores(self.scores)
        if self.space_prefix is not None:
            writer.add_add_space_prefix(self.space_prefix)
        merges = self.model == "gpt2"
        special = SpecialVocab(folder, load_merges=merges, n_vocab=len(self.tokens))
        if merges and not special.merges:
            raise UnsupportedModel("tokenizer.json has no merges")
        _name_special_tokens(special, folder, self.tokens)
        special.special_token_ids = self.special | special.special_token_ids
        template = folder / "chat_template.jinja"
        if special.chat_template is None and template.is_file():
            special.chat_template = template.read_text("utf-8", "replace")
        special.add_to_gguf(writer, quiet=True)
        ends = jsonfile.read_optional(folder / "generation_config.json").get("eos_token_id")
        for index in ends if isinstance(ends, list) else []:
            # The end of a turn, where that is not the end of the text.
            if index != special.special_token_ids.get("eos") and index in range(len(self.tokens)):
                writer.add_eot_token_id(index)
                break


def read(folder: Path) -> Vocabulary:
    """The vocabulary of a model that generates text. Raises ``UnsupportedModel``, ``OSError``."""
    if (folder / "tokenizer.model").is_file():
        return _sentencepiece(folder)
    if not (folder / "tokenizer.json").is_file():
        raise UnsupportedModel("unknown tokenizer format: no tokenizer.json and no tokenizer.model")
    tokenizer = jsonfile.read(folder / "tokenizer.json")
    model = _model(tokenizer)
    if model.get("type") not in ("BPE", None):
        raise UnsupportedModel(f"a tokenizer of the type {model.get('type')} is not supported here")
    if model.get("byte_fallback") is True:
        return _sentencepiece_json(tokenizer)
    vocabulary = Vocabulary("gpt2", pretokenizers.detect(tokenizer))
    _fill(vocabulary, _ids(model.get("vocab"), "tokenizer.json"), TokenType.NORMAL)
    _add(vocabulary, _added(tokenizer))
    prefix = jsonfile.read_optional(folder / "tokenizer_config.json").get("add_prefix_space")
    vocabulary.space_prefix = prefix if isinstance(prefix, bool) else None
    return vocabulary


def read_wordpiece(folder: Path) -> Vocabulary:
    """The vocabulary of a BERT, in llama.cpp's spelling: what begins a word has a mark in front,
    what goes on has none."""
    control = {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"}
    if (folder / "tokenizer.json").is_file():
        tokenizer = jsonfile.read(folder / "tokenizer.json")
        if _model(tokenizer).get("type") != "WordPiece":
            raise UnsupportedModel(
                f"a BERT with a tokenizer of the type {_model(tokenizer).get('type')} is not supported"
            )
        ids = _ids(_model(tokenizer).get("vocab"), "tokenizer.json")
        ids |= {text: index for index, text, _ in _added(tokenizer)}
        control |= {text for _, text, special in _added(tokenizer) if special}
    elif (folder / "vocab.txt").is_file():
        lines = (folder / "vocab.txt").read_text("utf-8", "replace").splitlines()
        ids = {line: index for index, line in enumerate(lines)}
    else:
        raise UnsupportedModel("unknown tokenizer format: no tokenizer.json and no vocab.txt")
    vocabulary = Vocabulary("bert")
    _fill(vocabulary, ids, TokenType.NORMAL)
    for index, text in enumerate(vocabulary.tokens):
        if text in control:
            vocabulary.types[index] = TokenType.CONTROL
        elif vocabulary.types[index] == TokenType.NORMAL:
            joined = text.startswith("##")
            vocabulary.tokens[index] = text[2:] if joined else _SPACE + text
    return vocabulary


# ------------------------------------------------------------------------------ SentencePiece


def _sentencepiece(folder: Path) -> Vocabulary:
    from sentencepiece import SentencePieceProcessor

    try:
        pieces = SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    except (RuntimeError, OSError, TypeError) as error:
        raise UnsupportedModel(f"tokenizer.model cannot be read: {error}") from None
    vocabulary = Vocabulary("llama")
    vocabulary.space_prefix = pieces.encode("a", out_type=str)[:1] != ["a"]
    for index in range(pieces.vocab_size()):
        kind = (
            TokenType.UNKNOWN
            if pieces.is_unknown(index)
            else TokenType.CONTROL
            if pieces.is_control(index)
            else TokenType.UNUSED
            if pieces.is_unused(index)
            else TokenType.BYTE
            if pieces.is_byte(index)
            else TokenType.NORMAL
        )
        vocabulary.set(index, pieces.id_to_piece(index), kind, pieces.get_score(index))
    named = {
        "bos": pieces.bos_id(),
        "eos": pieces.eos_id(),
        "unk": pieces.unk_id(),
        "pad": pieces.pad_id(),
    }
    vocabulary.special = {kind: index for kind, index in named.items() if index >= 0}
    added = jsonfile.read_optional(folder / "added_tokens.json")
    _add(vocabulary, [(i, text, False) for text, i in _ids(added, "added_tokens.json").items()])
    _add(vocabulary, _added_by_config(folder))
    return vocabulary


def _added_by_config(folder: Path) -> list[tuple[int, str, bool]]:
    decoder = jsonfile.read_optional(folder / "tokenizer_config.json").get("added_tokens_decoder")
    if not isinstance(decoder, dict):
        return []
    entries = [
        {**entry, "id": int(key)}
        for key, entry in decoder.items()
        if isinstance(entry, dict) and key.isdecimal()
    ]
    return _added({"added_tokens": entries})


def _sentencepiece_json(tokenizer: dict[str, Any]) -> Vocabulary:
    """A SentencePiece vocabulary that was saved as merges: their order gives back the scores."""
    model = _model(tokenizer)
    ids = _ids(model.get("vocab"), "tokenizer.json")
    vocabulary = Vocabulary("llama")
    vocabulary.space_prefix = "Prepend" in _normalizers(tokenizer.get("normalizer"))
    _fill(vocabulary, ids, TokenType.NORMAL)
    for rank, merged in enumerate(map("".join, _merges(model))):
        index = ids.get(merged)
        if index is not None and not vocabulary.scores[index]:
            vocabulary.scores[index] = -1.0 - rank
    for text, index in ids.items():
        if len(text) == 6 and text.startswith("<0x") and text.endswith(">"):
            vocabulary.types[index] = TokenType.BYTE
    unknown = ids.get(str(model.get("unk_token")))
    _add(vocabulary, _added(tokenizer))
    if unknown is not None:
        vocabulary.types[unknown] = TokenType.UNKNOWN
    return vocabulary


def _merges(model: dict[str, Any]) -> Iterator[list[str]]:
    merges = model.get("merges")
    for merge in merges if isinstance(merges, list) else []:
        yield merge.split(" ") if isinstance(merge, str) else list(map(str, merge))


def _normalizers(node: Any) -> list[str]:
    if not isinstance(node, dict):
        return []
    inner = node.get("normalizers")
    if isinstance(inner, list):
        return [name for child in inner for name in _normalizers(child)]
    return [str(node.get("type"))]


# ------------------------------------------------------------------------------ tokenizer.json


def _model(tokenizer: dict[str, Any]) -> dict[str, Any]:
    model = tokenizer.get("model")
    if not isinstance(model, dict):
        raise UnsupportedModel("tokenizer.json has no model")
    return model


def _ids(vocab: Any, name: str) -> dict[str, int]:
    """Token → id, checked: ids are whole numbers, none of them far beyond the tokens' number."""
    if not isinstance(vocab, dict):
        raise UnsupportedModel(f"{name} has no vocabulary")
    most = 2 * len(vocab) + 65536
    for text, index in vocab.items():
        if type(index) is not int or not 0 <= index < most:
            raise UnsupportedModel(
                f"{name}: the token {text!r:.40} has the impossible id {index!r}"
            )
    return vocab


def _added(tokenizer: dict[str, Any]) -> list[tuple[int, str, bool]]:
    """Id, text and whether it is special, of the tokens added to the model's own; by id."""
    entries = tokenizer.get("added_tokens") or []
    if not isinstance(entries, list):
        raise UnsupportedModel("tokenizer.json: added_tokens is no list")
    found = []
    for entry in entries:
        index, text = (entry.get("id"), entry.get("content")) if isinstance(entry, dict) else (0, 0)
        if type(index) is not int or not 0 <= index < 1 << 24 or not isinstance(text, str):
            raise UnsupportedModel("tokenizer.json: a token in added_tokens has no id and text")
        found.append((index, text, entry.get("special") is True))
    return sorted(found)


def _fill(vocabulary: Vocabulary, ids: dict[str, int], kind: int) -> None:
    """All tokens at their ids; holes become unused ones."""
    vocabulary.fit(max(ids.values(), default=-1) + 1)
    for text, index in ids.items():
        vocabulary.set(index, text, kind, 0.0)


def _add(vocabulary: Vocabulary, added: list[tuple[int, str, bool]]) -> None:
    """Put added tokens over what is there. llama.cpp wants them as they stand in a text."""
    for index, text, special in added:
        kind = TokenType.USER_DEFINED
        if special or _looks_special(text):
            kind = TokenType.CONTROL
        else:
            text = text.replace(_SPACE, " ")
        vocabulary.fit(max(len(vocabulary.tokens), index + 1))
        vocabulary.set(index, text, kind, _ADDED_SCORE)


def _looks_special(text: str) -> bool:
    """Some tokenizers forget to say so."""
    marks = (("<|", "|>"), ("<｜", "｜>"), ("<unused", ">"))
    known = ("<pad>", "<mask>", "<2mass>", "[@BOS@]", "<start_of_turn>", "<end_of_turn>")
    return text in known or any(text.startswith(a) and text.endswith(b) for a, b in marks)


def _name_special_tokens(special: SpecialVocab, folder: Path, tokens: list[str]) -> None:
    """What ``tokenizer_config.json`` names and only the vocabulary knows the id of."""
    config = jsonfile.read_optional(folder / "special_tokens_map.json")
    config |= jsonfile.read_optional(folder / "tokenizer_config.json")
    for kind in special.special_token_types:
        text = config.get(f"{kind}_token")
        if isinstance(text, dict):
            text = text.get("content")
        if kind not in special.special_token_ids and text in tokens:
            special.special_token_ids[kind] = tokens.index(text)
