"""Replies of the native API, field for field in Ollama's order; empty fields are left out."""

from __future__ import annotations

from typing import Any

import msgspec

from lhama.daemon.protocol import goencode
from lhama.daemon.wire import messages as wire

_encode_text = msgspec.json.Encoder().encode


class TokenProbability(msgspec.Struct, omit_defaults=True):
    token: str
    logprob: msgspec.Raw
    bytes: list[int] = []


class Logprob(msgspec.Struct, omit_defaults=True):
    token: str
    logprob: msgspec.Raw
    bytes: list[int] = []
    top_logprobs: list[TokenProbability] = []


class DebugInfo(msgspec.Struct, omit_defaults=True):
    rendered_template: str
    image_count: int = 0


class CallFunction(msgspec.Struct):
    index: int
    name: str
    arguments: msgspec.Raw


class Call(msgspec.Struct, omit_defaults=True, kw_only=True):
    id: str = ""
    function: CallFunction


class GenerateReply(msgspec.Struct, omit_defaults=True, kw_only=True):
    model: str
    created_at: str
    response: str
    thinking: str = ""
    done: bool
    done_reason: str = ""
    context: list[int] = []
    total_duration: int = 0
    load_duration: int = 0
    prompt_eval_count: int = 0
    prompt_eval_duration: int = 0
    eval_count: int = 0
    eval_duration: int = 0
    """Tokens of the prompt that were cut. Not Ollama's; absent where none was."""
    tool_calls: list[Call] | None = None
    debug_info: DebugInfo | None = msgspec.field(default=None, name="_debug_info")
    logprobs: list[Logprob] = []


class ReplyMessage(msgspec.Struct, omit_defaults=True, kw_only=True):
    role: str
    content: str
    thinking: str = ""
    tool_calls: list[Call] | None = None


class ChatReply(msgspec.Struct, omit_defaults=True, kw_only=True):
    model: str
    created_at: str
    message: ReplyMessage
    done: bool
    done_reason: str = ""
    debug_info: DebugInfo | None = msgspec.field(default=None, name="_debug_info")
    logprobs: list[Logprob] = []
    total_duration: int = 0
    load_duration: int = 0
    prompt_eval_count: int = 0
    prompt_eval_duration: int = 0
    eval_count: int = 0
    eval_duration: int = 0


class Progress(msgspec.Struct, omit_defaults=True):
    """One line of a create, pull or push; its encoding is the line on the wire."""

    status: str
    digest: str = ""
    total: int = 0
    completed: int = 0


class EmbedReply(msgspec.Struct, omit_defaults=True, kw_only=True):
    model: str
    embeddings: list[msgspec.Raw]
    total_duration: int = 0
    load_duration: int = 0
    prompt_eval_count: int = 0


class EmbeddingReply(msgspec.Struct):
    embedding: msgspec.Raw


class ErrorReply(msgspec.Struct):
    error: str


def error_body(message: str) -> bytes:
    return goencode.encode(ErrorReply(message))


def runner_error_text(message: str, status: int, kind: str, details: dict[str, int]) -> str:
    """A runner's error as Ollama shows llama-server's: a JSON object in the error's string."""
    if not kind:
        return message
    inner: dict[str, Any] = {"code": status, "message": message, "type": kind, **details}
    return _encode_text({"error": inner}).decode()


def logprobs(found: list[wire.TokenLogprob]) -> list[Logprob]:
    return [
        Logprob(
            token=item.token.decode("utf-8", "replace"),
            logprob=goencode.raw_float(item.logprob),
            bytes=list(item.token),
            top_logprobs=[
                TokenProbability(
                    token=token.decode("utf-8", "replace"),
                    logprob=goencode.raw_float(logprob),
                    bytes=list(token),
                )
                for token, logprob in item.top
            ],
        )
        for item in found
    ]


def tool_calls(calls: list[wire.ToolCall]) -> list[Call] | None:
    """Arguments keep the order the model wrote them in."""
    return [
        Call(
            id=call.id,
            function=CallFunction(
                index=call.index,
                name=call.name,
                arguments=msgspec.Raw(goencode.encode_any(call.arguments, sort_keys=False)),
            ),
        )
        for call in calls
    ] or None


class ChunkEncoder:
    """Encodes the lines of one stream that carry nothing but text: nearly all of them.

    What does not change in a stream is encoded once.
    """

    __slots__ = ("_middle", "_prefix", "_suffix")

    def __init__(self, model: str, *, chat: bool) -> None:
        name = goencode.escape(_encode_text(model))
        self._prefix = b'{"model":' + name + b',"created_at":"'
        if chat:
            self._middle = b'","message":{"role":"assistant","content":'
            self._suffix = b'},"done":false}\n'
        else:
            self._middle = b'","response":'
            self._suffix = b',"done":false}\n'

    def text(self, created_at: str, content: str) -> bytes:
        """One line with its newline."""
        encoded = goencode.escape(_encode_text(content))
        return b"".join((self._prefix, created_at.encode(), self._middle, encoded, self._suffix))
