"""Makes grammars: JSON, or a JSON Schema's, over a model's own vocabulary."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from functools import cached_property
from typing import Any, NamedTuple

from llguidance import LLMatcher, LLParserLimits, LLTokenizer, TokenizerWrapper

from lhama.daemon.errors import RunnerFailed
from lhama.daemon.runner.grammar import schema
from lhama.daemon.runner.grammar.masks import Grammar, Signs, words
from lhama.plugins.backend import Tokenizer

LIMITS = LLParserLimits(
    initial_lexer_fuel=10_000_000,  # 100,000 values in an enum: 0.4 s
    max_items_in_row=20_000,  # thousands of optional properties
    verbose_errors=False,
)

FREE = '%llguidance {"no_forcing": true}\n'
"""Where only one text can follow, its tokens are still the model's choice, as in llama.cpp."""

_VALUE = r"""
STRING: /"(\\(["\\\/bfnrt]|u[0-9a-fA-F]{4})|[^"\\\x00-\x1F\x7F])*"/
NUMBER: /-?(0|[1-9][0-9]{0,%d})(\.[0-9]{1,%d})?([eE][+-]?[0-9]{1,4})?/
"""
"""Numbers have no end of their own: without a bound a small model writes 0.3333 for ever. Under a schema
the bounds are llama.cpp's."""

JSON = (
    FREE
    + r"""
start: object
value: object | array | STRING | NUMBER | ("true" | "false" | "null") SPACE?
object: "{" SPACE? (pair ("," SPACE? pair)*)? SPACE? "}"
pair: STRING ":" SPACE? value
array: "[" SPACE? (value ("," SPACE? value)*)? SPACE? "]"
SPACE: /[ \t\n]{1,100}/
"""
    + _VALUE % (19, 20)
)
"""``format: json`` in Lark's notation, with white space where Ollama's grammar has it."""

LAYOUT = (
    FREE
    + r"""
start: value
value: object | array | STRING | NUMBER | "true" | "false" | "null"
object: "{" SPACE? (pair ("," SPACE? pair)*)? SPACE? "}"
pair: STRING SPACE? ":" SPACE? value
array: "[" SPACE? (value ("," SPACE? value)*)? SPACE? "]"
SPACE: / |\n{1,2}[ \t]{0,20}/
"""
    + _VALUE % (15, 16)
)
"""Any JSON, with white space where llama.cpp allows it in answers to a schema. A schema's own
grammar allows it anywhere, which is where a small model gets lost; both together are right."""

UNNAMED = LAYOUT.replace('STRING SPACE? ":"', 'STRING ":"')
"""The same for a schema that lists no properties: only names that are listed may have white space
behind them."""


class Vocabulary(NamedTuple):
    """A model's tokens, as grammars see them."""

    tokens: LLTokenizer
    signs: Signs


class Grammars:
    """Makes the grammars of one model."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._lock = threading.Lock()
        self._vocabulary: Vocabulary | None = None
        self._closed = False

    @property
    def ready(self) -> bool:
        """Whether the vocabulary is there."""
        return self._vocabulary is not None

    def vocabulary(self) -> Vocabulary:
        """Made once, which takes 0.2 s for 50,000 tokens and more than a second for 260,000,
        mostly with the interpreter locked."""
        with self._lock:
            if self._closed:
                raise RunnerFailed("the model is being unloaded")
            if self._vocabulary is None:
                ends = sorted(self._tokenizer.end_tokens) or [self._tokenizer.bos]
                source = _Source(self._tokenizer, ends[0])
                tokens = LLTokenizer(TokenizerWrapper(source), eos_token=ends)
                self._vocabulary = Vocabulary(tokens, Signs.of(source.tokens))
            return self._vocabulary

    def close(self) -> None:
        """Wait for a vocabulary in the making; allow no other."""
        with self._lock:
            self._closed = True

    def make(self, text: str) -> Grammar:
        """A grammar from ``json`` or a JSON Schema's text; raises ``RunnerFailed`` (400)."""
        signs = self.vocabulary().signs
        if text == "json":
            return Grammar(self._matcher(LLMatcher.grammar_from_lark(JSON)), None, signs)
        try:
            rule = self._rule(schema.read(text, _pattern_works))
        except ValueError as e:
            raise _refused(str(e)) from e
        layout = LAYOUT if '"properties"' in text else UNNAMED
        return Grammar(rule, self._matcher(LLMatcher.grammar_from_lark(layout)), signs)

    def _rule(self, wanted: dict[str, Any]) -> LLMatcher:
        """A schema's matcher. What llguidance cannot do is refused at first and then ignored, as
        llama.cpp ignores it. Raises ``ValueError``."""
        problem = ""
        for lenient in (False, True):
            options = {"whitespace_pattern": r"[ \t\n]{1,22}", "lenient": lenient}
            text = json.dumps({**wanted, "x-guidance": options})
            matcher = self._matcher(LLMatcher.grammar_from_lark(f"{FREE}start: %json {text}"))
            if not matcher.is_error() and not matcher.is_stopped():
                return matcher
            problem = problem or words(matcher) or "no value is valid"
        raise ValueError(problem)

    def _matcher(self, compiled: Any) -> LLMatcher:
        matcher = LLMatcher(self.vocabulary().tokens, compiled, log_level=0, limits=LIMITS)
        matcher.compute_bitmask()  # shows what can never be satisfied, and warms it up
        return matcher


class _Source:
    """The shape in which llguidance takes a tokenizer: bytes of every token, and an encoder.

    What a grammar forces is cut into tokens by it, so the tokens must be exactly that text: a
    SentencePiece model puts a space in front of a text.
    """

    def __init__(self, tokenizer: Tokenizer, end: int) -> None:
        self._tokenizer = tokenizer
        self.eos_token_id = end
        self.bos_token_id = tokenizer.bos if tokenizer.bos >= 0 else None
        self.tokens = [tokenizer.piece(token) for token in range(tokenizer.vocab)]
        self.special_token_ids = [t for t, piece in enumerate(self.tokens) if not piece]

    def __call__(self, text: str | bytes) -> list[int]:
        raw = text if isinstance(text, bytes) else text.encode()
        try:
            return self._cut(raw.decode(), raw)
        except UnicodeDecodeError:
            return self._greedy(raw)

    def _cut(self, text: str, raw: bytes) -> list[int]:
        found = self._tokenizer.encode(text, add_special=False, parse_special=False)
        if self._says(found, raw):
            return found
        # Behind a character that joins with none it is not the beginning of a text.
        found = self._tokenizer.encode(_APART + text, add_special=False, parse_special=False)
        for at, token in enumerate(found):
            if self.tokens[token] == _APART.encode() and self._says(found[at + 1 :], raw):
                return found[at + 1 :]
        return self._greedy(raw)

    def _says(self, tokens: Sequence[int], raw: bytes) -> bool:
        return b"".join(self.tokens[token] for token in tokens) == raw

    def _greedy(self, raw: bytes) -> list[int]:
        """The longest token that fits, again and again; none where that leads nowhere."""
        tokens: list[int] = []
        while raw:
            sizes = range(min(self._longest, len(raw)), 0, -1)
            size = next((size for size in sizes if raw[:size] in self._by_piece), 0)
            if not size:
                return []
            tokens.append(self._by_piece[raw[:size]])
            raw = raw[size:]
        return tokens

    @cached_property
    def _by_piece(self) -> dict[bytes, int]:
        return {piece: token for token, piece in reversed(list(enumerate(self.tokens))) if piece}

    @cached_property
    def _longest(self) -> int:
        return max(map(len, self._by_piece))


_APART = "\x02"


def _pattern_works(pattern: str) -> bool:
    """Whether llguidance takes a pattern: it knows no look-around and no back references."""
    compiled: Any = LLMatcher.grammar_from_json_schema(
        json.dumps({"type": "string", "pattern": pattern})
    )
    return not LLMatcher.validate_grammar(compiled, limits=LIMITS)


def _refused(reason: str) -> RunnerFailed:
    message = f"Field 'json_schema': \"json_schema\": JSON schema conversion failed:\n{reason}"
    return RunnerFailed(message, status=400, kind="invalid_request_error")
