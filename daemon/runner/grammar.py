"""Token masks for structured output, by llguidance over the model's own vocabulary."""

from __future__ import annotations

import json
import re
import threading
from typing import Any

from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper

from lhama.daemon.errors import RunnerFailed
from lhama.plugins.backend import Tokenizer


class Grammars:
    """Makes matchers for one model. The vocabulary is read at the first use: it takes seconds."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._lock = threading.Lock()
        self._vocabulary: LLTokenizer | None = None

    def matcher(self, text: str) -> Grammar:
        """A grammar from ``json`` or a JSON Schema's text; raises ``RunnerFailed`` (400)."""
        schema = '{"type":"object"}' if text == "json" else _closed(text)
        with self._lock:
            if self._vocabulary is None:
                self._vocabulary = LLTokenizer(TokenizerWrapper(_Vocabulary(self._tokenizer)))
        try:
            compiled = LLMatcher.grammar_from_json_schema(schema, defaults=_JSON_STYLE)
        except ValueError as e:
            raise _refused(str(e)) from e
        matcher = LLMatcher(self._vocabulary, compiled, log_level=0)
        if matcher.is_error():
            raise _refused(matcher.get_error())
        return Grammar(matcher)


class Grammar:
    """The state of one constrained answer."""

    def __init__(self, matcher: LLMatcher) -> None:
        self._matcher = matcher

    def mask(self) -> bytes:
        """Allowed next tokens, as ``StepHandle.supply_masks`` wants them."""
        mask: bytes = self._matcher.compute_bitmask()
        return mask

    def accept(self, token: int) -> bool:
        """Move on by a drawn token; True when nothing may follow it."""
        self._matcher.consume_token(token)
        return bool(self._matcher.is_stopped() or self._matcher.is_error())


_JSON_STYLE = {"whitespace_flexible": True}


class _Vocabulary:
    """The shape in which llguidance takes a tokenizer: bytes of every token, and an encoder."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        ends = sorted(tokenizer.end_tokens)
        self._tokenizer = tokenizer
        self.eos_token_id = ends[0] if ends else tokenizer.bos
        self.bos_token_id = tokenizer.bos if tokenizer.bos >= 0 else None
        self.tokens = [tokenizer.piece(token) for token in range(tokenizer.vocab)]
        self.special_token_ids = [t for t, piece in enumerate(self.tokens) if not piece]

    def __call__(self, text: str | bytes) -> list[int]:
        if isinstance(text, bytes):
            text = text.decode("utf-8", "replace")
        return self._tokenizer.encode(text, add_special=False, parse_special=False)


def _closed(text: str) -> str:
    """The schema with objects that list their properties allowing no others, unless it says so:
    llama.cpp reads schemas that way, and a small model left free rambles on."""
    return json.dumps(_close(json.loads(text)))


def _close(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_close(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: _close_value(key, value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and "type" in schema:
        closed.setdefault("additionalProperties", False)
    return closed


def _close_value(key: str, value: Any) -> Any:
    if key in _LITERAL:
        return value
    if key in _NAMED and isinstance(value, dict):
        return {name: _close(schema) for name, schema in value.items()}
    return _close(value)


_LITERAL = {"enum", "const", "default", "examples", "required"}
"""Keywords whose values are data, not schemas."""

_NAMED = {"properties", "patternProperties", "$defs", "definitions"}
"""Keywords whose values are schemas by name: no name in them is a keyword."""


def _refused(reason: str) -> RunnerFailed:
    reason = re.sub(r"^Invalid type: ", "JSON schema error at #: unrecognized type ", reason)
    message = f"Field 'json_schema': \"json_schema\": JSON schema conversion failed:\n{reason}"
    return RunnerFailed(message, status=400, kind="invalid_request_error")
