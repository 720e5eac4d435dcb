"""Prompts that are longer than the context. Rules and texts: golden ``*_over_ctx_*``,
``*_too_long_*``, ``generate_num_keep_*``; llama-server's words reach clients through Ollama."""

from __future__ import annotations

from lhama.daemon.errors import BadRequest, RunnerFailed

CONTEXT_STEP = 256
"""llama.cpp rounds a context up to a multiple of this: num_ctx 64 runs as 256."""

TOO_LONG = (
    "the prompt is longer than the context length currently available to the model; shorten the "
    "prompt, adjust the context length in settings, or use a model with a longer context length"
)


def real_context(num_ctx: int) -> int:
    """Tokens a sequence really gets when ``num_ctx`` are asked for."""
    return -(-num_ctx // CONTEXT_STEP) * CONTEXT_STEP


def refuse_beyond(tokens: int, context: int) -> None:
    """Raise llama-server's error if the prompt leaves no place for an answer."""
    if tokens >= context:
        raise RunnerFailed(
            f"request ({tokens} tokens) exceeds the available context size ({context} tokens), "
            "try increasing it",
            status=400,
            kind="exceed_context_size_error",
            details={"n_prompt_tokens": tokens, "n_ctx": context},
        )


def cut(tokens: list[int], num_ctx: int, num_keep: int, *, shift: bool, bos: bool) -> list[int]:
    """The first ``num_keep`` tokens and the newest ones, so that half the rest of the context is
    free; ``tokens`` itself if it fits.

    ``num_keep`` below zero keeps all that can be kept; ``bos`` keeps one more. Raises
    ``BadRequest`` where nothing may be dropped (``shift`` off).
    """
    if len(tokens) < num_ctx:
        return tokens
    if not shift:
        raise BadRequest(TOO_LONG)
    keep = min(len(tokens) if num_keep < 0 else num_keep + bos, num_ctx - 1)
    total = kept_total(num_ctx, keep)
    newest = total - keep
    return tokens[:keep] + tokens[len(tokens) - newest :]


def kept_total(num_ctx: int, keep: int) -> int:
    """Tokens left of a prompt that is too long: 4096 and 5 give 2051."""
    return num_ctx - max((num_ctx - keep) // 2, 1)
