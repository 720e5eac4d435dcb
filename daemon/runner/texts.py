"""Texts to the tokens that are embedded: what fits, what is cut, what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from lhama.daemon.errors import RunnerFailed
from lhama.daemon.wire.messages import Embed, Rank
from lhama.plugins import gguf
from lhama.plugins.backend import Tokenizer

TOO_LONG = "the input length exceeds the context length"
NOTHING_LEFT = "input after truncation exceeds maximum context length"
CANNOT_BE_CUT = "input exceeds maximum context length and cannot be truncated further"
EMPTY = "Input content cannot be empty"
QUERY_TOO_LONG = "the query is too long: it leaves no room for a document"


@dataclass(frozen=True, slots=True)
class TextFacts:
    """What the model's file says about the tokens around a text; -1 for none."""

    bos: int = -1
    eos: int = -1
    separator: int = -1
    """Stands between query and document beside the token that ends a text."""
    rerank_template: str = ""
    """A query and a document as one prompt, at ``{query}`` and ``{document}``."""

    @classmethod
    def read(cls, weights: str) -> TextFacts:
        """The facts in the header of the GGUF at ``weights``; none where it is no GGUF."""
        try:
            header = gguf.read(weights)
        except (gguf.GGUFError, OSError):
            return cls()
        key = "tokenizer.ggml."
        both = header.get_bool(key + "add_eos_token") and header.get_bool(key + "add_sep_token")
        return cls(
            bos=header.get_int(key + "bos_token_id", -1),
            eos=header.get_int(key + "eos_token_id", -1),
            separator=header.get_int(key + "seperator_token_id", -1) if both else -1,
            rerank_template=header.get_str("tokenizer.chat_template.rerank"),
        )


@dataclass(frozen=True, slots=True)
class TextTokens:
    """A text as the engine gets it."""

    tokens: list[int]
    cut: int = 0
    """Tokens that were cut to make it fit."""


class TextTokenizer:
    """The rules of /api/embed (contract §1), and pairs of a query and a document."""

    def __init__(self, tokenizer: Tokenizer, facts: TextFacts, longest: int) -> None:
        """``longest``: tokens of a text that the engine takes."""
        self._tokenizer = tokenizer
        self._facts = facts
        self._longest = longest
        self._front, self._back = self._around()

    def texts(self, request: Embed) -> Iterator[TextTokens]:
        """Tokens of each input, made when asked for. Raises ``RunnerFailed`` for one that does not
        fit."""
        for text in self.admitted(request):
            yield self._fitting(text, request)

    def admitted(self, request: Embed) -> Iterator[TextTokens]:
        """Tokens of each input, as far as the context lets it through, without what a model wants
        around a text. Raises ``RunnerFailed``."""
        for text in request.inputs:
            tokens = self._encode(text)
            if request.truncate is None:
                yield TextTokens(tokens)
                continue
            cut = self._cut(tokens, request.context)
            if len(cut) < len(tokens) and not request.truncate:
                raise RunnerFailed(TOO_LONG, status=400)
            yield TextTokens(cut, len(tokens) - len(cut))

    def pairs(self, request: Rank) -> Iterator[TextTokens]:
        """Tokens of the query with each document. Raises ``RunnerFailed`` as ``texts``."""
        for document in request.documents:
            tokens = self._pair(request.query, document)
            over = max(0, len(tokens) - self._longest)
            if over and request.truncate:
                tokens = self._pair(request.query, self._shortened(document, over))
            if not 0 < len(tokens) <= self._longest:
                raise RunnerFailed(TOO_LONG if tokens else EMPTY, status=400)
            yield TextTokens(tokens, over)

    # ---------------------------------------------------------------------------------- one text

    def _fitting(self, text: TextTokens, request: Embed) -> TextTokens:
        """What the engine gets; what it would not take is cut once more, as Ollama does when its
        runner refuses a text."""
        tokens = self._whole(text.tokens)
        if 0 < len(tokens) <= self._longest:
            return TextTokens(tokens, text.cut)
        if not request.truncate:
            raise RunnerFailed(TOO_LONG if tokens else EMPTY, status=400)
        cut = self._cut(text.tokens, min(request.context, request.batch or request.context))
        less = len(text.tokens) - len(cut)
        if not less:
            raise RunnerFailed(CANNOT_BE_CUT, status=400)
        tokens = self._whole(cut)
        if len(tokens) > self._longest:
            raise RunnerFailed(TOO_LONG, status=400)
        return TextTokens(tokens, text.cut + less)

    def _cut(self, text: list[int], limit: int) -> list[int]:
        """``text`` as far as it fits with a BOS and an EOS, which count whether the model wants
        them or not, unless the text has them."""
        if text:
            limit -= (text[0] != self._facts.bos) + (text[-1] != self._facts.eos)
        if limit <= 0:
            raise RunnerFailed(NOTHING_LEFT, status=400)
        return text[:limit]

    # ---------------------------------------------------------------------------------- one pair

    def _pair(self, query: str, document: str) -> list[int]:
        if template := self._facts.rerank_template:
            # Not one after the other: a query may hold the word {document}.
            before, _, behind = template.partition("{document}")
            prompt = before.replace("{query}", query) + document + behind.replace("{query}", query)
            return self._encode(prompt)
        between = [self._facts.separator] if self._facts.separator >= 0 else []
        first, second = self._encode(query, special=False), self._encode(document, special=False)
        return [*self._front, *first, *self._back, *between, *second, *self._back]

    def _shortened(self, document: str, over: int) -> str:
        """The document without its last ``over`` tokens."""
        tokens = self._encode(document, special=False)[:-over]
        if not tokens:
            raise RunnerFailed(QUERY_TOO_LONG, status=400)
        pieces = (self._tokenizer.piece(token, special=True) for token in tokens)
        return b"".join(pieces).decode("utf-8", "ignore")

    # ------------------------------------------------------------------------------------ tokens

    def _whole(self, text: list[int]) -> list[int]:
        return [*self._front, *text, *self._back]

    def _encode(self, text: str, *, special: bool = True) -> list[int]:
        return self._tokenizer.encode(text, add_special=False, parse_special=special)

    def _around(self) -> tuple[list[int], list[int]]:
        """What the tokenizer puts around a text, seen on one."""
        probe = "a"
        bare = self._encode(probe)
        whole = self._tokenizer.encode(probe, add_special=True, parse_special=True)
        at = next(i for i in range(len(whole)) if whole[i : i + len(bare)] == bare)
        return whole[:at], whole[at + len(bare) :]
