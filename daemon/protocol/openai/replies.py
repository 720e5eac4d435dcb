"""Replies of OpenAI's protocol, field for field in Ollama's order."""

from __future__ import annotations

import msgspec

from lhama.daemon.protocol import goencode
from lhama.daemon.protocol.replies import DebugInfo, Logprob
from lhama.daemon.protocol.replies import logprobs as token_logprobs
from lhama.daemon.wire import messages as wire

FINGERPRINT = "fp_ollama"


class Usage(msgspec.Struct, omit_defaults=True):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    truncated_tokens: int = 0
    """Tokens of the prompt that were cut to make it fit. Not OpenAI's; absent where none was."""


class CallFunction(msgspec.Struct):
    name: str
    arguments: str


class ToolCall(msgspec.Struct):
    id: str
    index: int
    type: str
    function: CallFunction


class Logprobs(msgspec.Struct):
    content: list[Logprob]


class ReplyMessage(msgspec.Struct, omit_defaults=True):
    role: str
    content: str
    reasoning: str = ""
    tool_calls: list[ToolCall] = []


class Choice(msgspec.Struct, omit_defaults=True):
    index: int
    message: ReplyMessage
    finish_reason: str | None
    logprobs: Logprobs | None = None


class ChatCompletion(msgspec.Struct, omit_defaults=True, kw_only=True):
    id: str
    object: str
    created: int
    model: str
    system_fingerprint: str
    choices: list[Choice]
    usage: Usage
    debug_info: DebugInfo | None = msgspec.field(default=None, name="_debug_info")


class ChunkDelta(msgspec.Struct, omit_defaults=True):
    role: str = ""
    content: str | None = None
    reasoning: str = ""
    tool_calls: list[ToolCall] = []


class ChunkChoice(msgspec.Struct, omit_defaults=True):
    index: int
    delta: ChunkDelta
    finish_reason: str | None
    logprobs: Logprobs | None = None


class TextChoice(msgspec.Struct):
    text: str
    index: int
    finish_reason: str | None


class Completion(msgspec.Struct):
    id: str
    object: str
    created: int
    model: str
    system_fingerprint: str
    choices: list[TextChoice]
    usage: Usage


class Model(msgspec.Struct):
    id: str
    object: str
    created: int
    owned_by: str


class ModelList(msgspec.Struct):
    object: str
    data: list[Model]


def usage(done: wire.Done) -> Usage:
    total = done.prompt_tokens + done.eval_tokens
    return Usage(done.prompt_tokens, done.eval_tokens, total, done.truncated_tokens)


def tool_calls(calls: list[wire.ToolCall]) -> list[ToolCall]:
    """Calls with their arguments as JSON in a string, in the order the model wrote them."""
    return [
        ToolCall(call.id, call.index, "function", CallFunction(call.name, arguments(call)))
        for call in calls
    ]


def arguments(call: wire.ToolCall) -> str:
    return goencode.encode_any(call.arguments, sort_keys=False).decode()


def choice_logprobs(found: list[wire.TokenLogprob]) -> Logprobs | None:
    return Logprobs(token_logprobs(found)) if found else None
