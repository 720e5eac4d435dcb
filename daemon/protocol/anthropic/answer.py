"""Answers of ``/v1/messages``: the events of a stream, or one message."""

from __future__ import annotations

from typing import Any

import msgspec

from lhama.daemon.protocol import goencode, ids, sse, websearch
from lhama.daemon.protocol.answer import EventAnswer, Piece, only_text
from lhama.daemon.protocol.anthropic import errors, estimate, reading
from lhama.daemon.protocol.anthropic.requests import MessagesRequest
from lhama.daemon.wire import messages as wire

_REASONS = {"stop": "end_turn", "length": "max_tokens"}
_EMPTY = msgspec.Raw(b"{}")


class Usage(msgspec.Struct, omit_defaults=True):
    input_tokens: int
    output_tokens: int
    truncated_tokens: int = 0
    """Tokens of the prompt that were cut. Not Anthropic's; absent where none was."""

    @classmethod
    def of(cls, done: wire.Done) -> Usage:
        return cls(done.prompt_tokens, done.eval_tokens, done.truncated_tokens)


class Block(msgspec.Struct, omit_defaults=True):
    """A block of content, fields in Ollama's order."""

    type: str
    text: str | None = None
    id: str = ""
    name: str = ""
    input: msgspec.Raw | None = None
    tool_use_id: str = ""
    content: dict[str, str] | None = None
    thinking: str | None = None


class Message(msgspec.Struct, omit_defaults=True, kw_only=True):
    id: str
    type: str
    role: str
    model: str
    content: list[Block] | None
    stop_reason: str = ""
    usage: Usage


class MessagesAnswer(EventAnswer):
    """At most one block is open: thoughts or text. Calls come whole, each a block."""

    stream_headers = sse.HEADERS

    def __init__(self, request: MessagesRequest) -> None:
        super().__init__(request.model)
        self._id = ids.hexadecimal("msg")
        self._estimate = estimate.input_tokens(request)
        self._searches = reading.searches(request.tools)
        self._begun = False
        self._open = ""
        """Type of the block that is being sent, if one is."""
        self._index = 0
        self._thought = False
        """Whether a block of thoughts was closed: what comes later is dropped."""
        self._called = False

    # ------------------------------------------------------------------------------------ a stream

    def events(self, delta: wire.Delta) -> bytes:
        if self._open == "text" and only_text(delta):
            events = self._text(delta.content)
        else:
            events = self._begin(delta) + self._carried(delta)
        return events if delta.done is None else events + self._end(delta.done)

    def broken(self, status: int, message: str) -> bytes:
        return sse.event("error", errors.envelope(status, message))

    def _begin(self, delta: wire.Delta) -> bytes:
        """The count is known where the end comes first, otherwise estimated."""
        if self._begun:
            return b""
        self._begun = True
        known = delta.done.prompt_tokens if delta.done and not Piece.of(delta) else 0
        usage = Usage(known or self._estimate, 0)
        return self._event("message_start", message=self._message([], "", usage))

    def _carried(self, delta: wire.Delta) -> bytes:
        """Thoughts, text and calls, in this order."""
        events = b""
        if delta.thinking and not self._thought:
            if self._open != "thinking":
                events += self._start("thinking", Block("thinking", thinking=""))
            thought = {"type": "thinking_delta", "thinking": delta.thinking}
            events += self._event("content_block_delta", index=self._index, delta=thought)
        if delta.content:
            if self._open != "text":
                events += self._start("text", Block("text", text=""))
            events += self._text(delta.content)
        for call in delta.tool_calls:
            events += self._call(call)
        return events

    def _end(self, done: wire.Done) -> bytes:
        reason = self._stop_reason(done)
        delta = {"stop_reason": reason} if reason else {}
        ended = self._event("message_delta", delta=delta, usage=Usage.of(done))
        return self._stop() + ended + self._event("message_stop")

    # ------------------------------------------------------------------------------ blocks, in turn

    def _text(self, text: str) -> bytes:
        """Nearly every event: written out."""
        encoded = goencode.text(text)
        return (
            b"event: content_block_delta\n"
            b'data: {"type":"content_block_delta","index":%d,'
            b'"delta":{"type":"text_delta","text":%b}}\n\n'
        ) % (self._index, encoded)

    def _call(self, call: wire.ToolCall) -> bytes:
        if self._is_search(call):
            found = _search_blocks(call)
            return b"".join(self._start(block.type, block) + self._stop() for block in found)
        self._called = True
        arguments = {"type": "input_json_delta", "partial_json": _arguments(call).decode()}
        start = self._start("tool_use", Block("tool_use", id=call.id, name=call.name, input=_EMPTY))
        delta = self._event("content_block_delta", index=self._index, delta=arguments)
        return start + delta + self._stop()

    def _start(self, kind: str, block: Block) -> bytes:
        """Open a block, after what is open is closed."""
        stopped = self._stop()
        self._open = kind
        return stopped + self._event("content_block_start", index=self._index, content_block=block)

    def _stop(self) -> bytes:
        if not self._open:
            return b""
        event = self._event("content_block_stop", index=self._index)
        self._thought |= self._open == "thinking"
        self._open = ""
        self._index += 1
        return event

    def _event(self, kind: str, **data: Any) -> bytes:
        return sse.event(kind, goencode.encode({"type": kind, **data}))

    # -------------------------------------------------------------------------------------- whole

    def whole(self, piece: Piece, done: wire.Done) -> bytes:
        blocks = [Block("thinking", thinking=piece.thinking)] if piece.thinking else []
        blocks += [Block("text", text=piece.content)] if piece.content else []
        for call in piece.tool_calls:
            if self._is_search(call):
                blocks += _search_blocks(call)
                continue
            self._called = True
            arguments = msgspec.Raw(_arguments(call))
            blocks.append(Block("tool_use", id=call.id, name=call.name, input=arguments))
        return self._body(blocks, done)

    def control(self, reason: str) -> bytes:
        """Ollama's answer where every block was of an unknown type: no content at all."""
        return self._body(None, wire.Done(reason, 0, 0, 0, 0))

    def _body(self, blocks: list[Block] | None, done: wire.Done) -> bytes:
        message = self._message(blocks, self._stop_reason(done), Usage.of(done))
        return goencode.encode(message) + b"\n"

    def _message(self, blocks: list[Block] | None, stop_reason: str, usage: Usage) -> Message:
        return Message(
            id=self._id,
            type="message",
            role="assistant",
            model=self._model,
            content=blocks,
            stop_reason=stop_reason,
            usage=usage,
        )

    def _stop_reason(self, done: wire.Done) -> str:
        """A stop string that was found counts as the end of the turn, as in Ollama."""
        if self._called:
            return "tool_use"
        return _REASONS.get(done.reason, "stop_sequence") if done.reason else ""

    def _is_search(self, call: wire.ToolCall) -> bool:
        return self._searches and call.name == websearch.NAME


def _search_blocks(call: wire.ToolCall) -> list[Block]:
    """A search by the server, and that it found nobody to ask."""
    query = goencode.encode({"query": str(call.arguments.get("query", ""))})
    search_id = ids.hexadecimal("srvtoolu")
    error = {"type": "web_search_tool_result_error", "error_code": "unavailable"}
    return [
        Block("server_tool_use", id=search_id, name=call.name, input=msgspec.Raw(query)),
        Block("web_search_tool_result", tool_use_id=search_id, content=error),
    ]


def _arguments(call: wire.ToolCall) -> bytes:
    return goencode.encode_any(call.arguments, sort_keys=False)
