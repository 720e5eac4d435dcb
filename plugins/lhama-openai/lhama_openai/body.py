"""From a question to the body of a request: OpenAI's, and what a dialect adds to it."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Sequence
from typing import Any

from lhama.plugins.text import Question, TextError, Turn

_FORMATS = ((b"\x89PNG", "image/png"), (b"\xff\xd8", "image/jpeg"), (b"GIF8", "image/gif"))


def body(question: Question, model: str, dialect: str) -> tuple[str, dict[str, Any]]:
    """The path below ``/v1`` and the request's JSON. Raises ``TextError``."""
    common = {
        "model": model,
        "stream": True,
        "stream_options": {"include_usage": True},
        **_sampling(question, dialect),
        **_stops(question),
    }
    if not question.turns:
        return "/completions", {**common, "prompt": question.text, **_limit(question, "openai-old")}
    if question.logprobs >= 0:
        common |= {"logprobs": True, "top_logprobs": question.logprobs}
    chat = {
        **common,
        "messages": list(messages(question.turns)),
        **_limit(question, dialect),
        **_thinking(question, dialect),
        **_format(question.grammar),
    }
    if question.tools:
        chat["tools"] = list(question.tools)
    return "/chat/completions", chat


def _limit(question: Question, dialect: str) -> dict[str, int]:
    if question.most_tokens < 0:
        return {}
    # OpenAI's reasoning models refuse the older name, other servers may not know the newer.
    name = "max_completion_tokens" if dialect == "openai" else "max_tokens"
    return {name: question.most_tokens}


def _stops(question: Question) -> dict[str, list[str]]:
    return {"stop": list(question.stop)} if question.stop else {}


def _sampling(question: Question, dialect: str) -> dict[str, float | int]:
    sampling = question.sampling
    values: dict[str, float | int] = {
        "temperature": max(sampling.temperature, 0),
        "top_p": sampling.top_p,
        "seed": sampling.seed,
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
    }
    if dialect != "openai":
        values |= {"top_k": sampling.top_k, "min_p": sampling.min_p}
    if dialect == "vllm":
        values["repetition_penalty"] = sampling.repeat_penalty
    if dialect == "llama.cpp":
        values |= {
            "typical_p": sampling.typical_p,
            "repeat_penalty": sampling.repeat_penalty,
            "repeat_last_n": sampling.repeat_last_n,
        }
    return values


def _thinking(question: Question, dialect: str) -> dict[str, Any]:
    think = question.think
    if think is None:
        return {}
    wanted: dict[str, Any] = {}
    if isinstance(think, str):
        wanted["reasoning_effort"] = think
    elif not think and dialect == "openai":
        wanted["reasoning_effort"] = "none"
    if dialect != "openai":
        wanted["chat_template_kwargs"] = {"enable_thinking": bool(think)}
    return wanted


def _format(grammar: str) -> dict[str, Any]:
    if not grammar:
        return {}
    if grammar == "json":
        return {"response_format": {"type": "json_object"}}
    schema = {"name": "answer", "schema": json.loads(grammar)}
    return {"response_format": {"type": "json_schema", "json_schema": schema}}


def messages(turns: Sequence[Turn]) -> Iterator[dict[str, Any]]:
    """The conversation. OpenAI's has ids that tie a tool's answer to its call, where Ollama's need
    none: those that are missing are given, in order."""
    unanswered: list[tuple[str, str]] = []
    for number, turn in enumerate(turns):
        said: dict[str, Any] = {"role": turn.role, "content": _content(turn)}
        if turn.thinking:
            said["reasoning_content"] = turn.thinking
        if turn.calls:
            ids = [call.id or f"call_{number}_{n}" for n, call in enumerate(turn.calls)]
            unanswered = [(call.name, id) for call, id in zip(turn.calls, ids, strict=True)]
            said["tool_calls"] = [
                {
                    "id": id,
                    "type": "function",
                    "function": {"name": call.name, "arguments": json.dumps(dict(call.arguments))},
                }
                for call, id in zip(turn.calls, ids, strict=True)
            ]
        if turn.role == "tool":
            said["tool_call_id"] = turn.call or _matching(turn.tool, unanswered)
            unanswered = [open for open in unanswered if open[1] != said["tool_call_id"]]
        yield said


def _matching(tool: str, unanswered: Sequence[tuple[str, str]]) -> str:
    """The id of the first call that waits for this tool; without a name, of the first at all."""
    waiting = [id for name, id in unanswered if not tool or name == tool]
    if not waiting:
        raise TextError(f"a tool's answer ({tool or 'unnamed'}) belongs to no call", status=400)
    return waiting[0]


def _content(turn: Turn) -> str | list[dict[str, Any]]:
    if not turn.media:
        return turn.content
    parts: list[dict[str, Any]] = [{"type": "text", "text": turn.content}] if turn.content else []
    for data in turn.media:
        url = f"data:{_format_of(data)};base64,{base64.b64encode(data).decode()}"
        parts.append({"type": "image_url", "image_url": {"url": url}})
    return parts


def _format_of(data: bytes) -> str:
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    for mark, name in _FORMATS:
        if data.startswith(mark):
            return name
    raise TextError("only pictures can be sent on: PNG, JPEG, GIF or WebP", status=400)
