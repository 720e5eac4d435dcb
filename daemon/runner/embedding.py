"""Embeds a batch of texts: truncation rules, then the engine."""

from __future__ import annotations

from lhama.daemon.errors import RunnerFailed
from lhama.daemon.wire.messages import Embed, Embedded
from lhama.plugins.backend import Engine, Tokenizer

UNSUPPORTED = "This server does not support embeddings. Start it with `--embeddings`"
"""llama-server's words, which Ollama relays and clients know."""


def embed(engine: Engine, request: Embed) -> Embedded:
    """One vector an input, not normalised. Raises ``RunnerFailed``.

    Each input may have the context's length less what the tokenizer adds (contract of /api/embed,
    docs/compatibility.md); longer ones are cut or refused.
    """
    inputs = [_tokens(engine, text, request.truncate) for text in request.inputs]
    if "embed" not in engine.limits.features:
        raise RunnerFailed(UNSUPPORTED, status=501)
    return Embedded(request.id, engine.embed(inputs), sum(map(len, inputs)))


def _tokens(engine: Engine, text: str, truncate: bool) -> list[int]:
    tokenizer = engine.tokenizer
    limit = engine.limits.context - tokenizer.add_bos - tokenizer.add_eos
    tokens = tokenizer.encode(text, add_special=False, parse_special=False)
    if len(tokens) > limit:
        if not truncate:
            raise RunnerFailed("the input length exceeds the context length", status=400)
        if limit <= 0:
            raise RunnerFailed("input after truncation exceeds maximum context length", status=400)
        tokens = tokens[:limit]
    return _with_special(tokenizer, tokens)


def _with_special(tokenizer: Tokenizer, tokens: list[int]) -> list[int]:
    """Put the special tokens around that encoding an empty text shows."""
    special = tokenizer.encode("", add_special=True, parse_special=False)
    front = special[:1] if tokenizer.add_bos else []
    back = special[-1:] if tokenizer.add_eos else []
    return [*front, *tokens, *back]
