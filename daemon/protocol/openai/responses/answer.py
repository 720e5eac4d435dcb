"""Answers of ``/v1/responses``: the events of a stream, or one response object."""

from __future__ import annotations

from typing import Any

from lhama.daemon.errors import Forbidden
from lhama.daemon.protocol import goencode, ids, sse, websearch
from lhama.daemon.protocol.answer import EventAnswer, Piece, only_text
from lhama.daemon.protocol.openai.replies import arguments
from lhama.daemon.protocol.openai.responses import reading, replies
from lhama.daemon.protocol.openai.responses.replies import Json
from lhama.daemon.protocol.openai.responses.requests import ResponsesRequest
from lhama.daemon.wire import messages as wire

_TEXT_DELTA = "response.output_text.delta"


class ResponsesAnswer(EventAnswer):
    """At most one item is open: thoughts or a message. Calls come whole, each an item."""

    stream_headers = sse.HEADERS

    def __init__(self, request: ResponsesRequest) -> None:
        super().__init__(request.model)
        self._request = request
        self._id = ids.numbered("resp_")
        self._searches = reading.searches(request.tools)
        self._sequence = 0
        self._output: list[Json] = []
        """Items that are complete."""
        self._open = ""
        """Kind of the item that is being sent, if one is."""
        self._item = ""
        self._parts: list[str] = []
        self._called = False

    # ------------------------------------------------------------------------------------ a stream

    def events(self, delta: wire.Delta) -> bytes:
        if self._open == "message" and only_text(delta):
            events = self._text(delta.content)
        else:
            events = self._begin() + self._carried(delta)
        return events if delta.done is None else events + self._end(delta.done)

    def broken(self, status: int, message: str) -> bytes:
        error = {"code": "server_error", "message": message}
        failed = replies.response(
            self._request, self._id, "failed", self._output, error=error, nulls=True
        )
        return self._begin() + self._event("response.failed", response=failed)

    def _begin(self) -> bytes:
        if self._sequence:
            return b""
        begun = replies.response(self._request, self._id, "in_progress", [], nulls=True)
        return self._event("response.created", response=begun) + self._event(
            "response.in_progress", response=begun
        )

    def _carried(self, delta: wire.Delta) -> bytes:
        """Thoughts, text and calls, in this order. Text that follows a call is dropped."""
        events = b""
        if delta.thinking:
            events += self._thoughts(delta.thinking)
        if delta.content and not self._called:
            if self._open != "message":
                events += self._open_message()
            events += self._text(delta.content)
        for call in delta.tool_calls:
            events += self._call(call)
        return events

    def _end(self, done: wire.Done) -> bytes:
        closed = self._close()
        completed = replies.response(
            self._request, self._id, "completed", self._output, done, nulls=True
        )
        return closed + self._event("response.completed", response=completed)

    # ------------------------------------------------------------------------------- items, in turn

    def _thoughts(self, text: str) -> bytes:
        events = b""
        if self._open != "reasoning":
            events = self._close()
            self._start("reasoning", "rs_")
            item = {"id": self._item, "type": "reasoning", "summary": []}
            events += self._event("response.output_item.added", item=item)
        self._parts.append(text)
        return events + self._event(
            "response.reasoning_summary_text.delta", summary_index=0, delta=text, **self._place()
        )

    def _open_message(self) -> bytes:
        events = self._close()
        self._start("message", "msg_")
        item = replies.message(self._item, None, "in_progress")
        events += self._event("response.output_item.added", item=item)
        part = replies.text_part("")
        return events + self._event(
            "response.content_part.added", content_index=0, part=part, **self._place()
        )

    def _text(self, text: str) -> bytes:
        """Nearly every event: written out, keys in order."""
        self._parts.append(text)
        data = (
            b'{"content_index":0,"delta":%b,"item_id":"%b","logprobs":[],"output_index":%d,'
            b'"sequence_number":%d,"type":"response.output_text.delta"}'
        ) % (goencode.text(text), self._item.encode(), len(self._output), self._sequence)
        self._sequence += 1
        return sse.event(_TEXT_DELTA, data)

    def _call(self, call: wire.ToolCall) -> bytes:
        _refuse_search(call, self._searches)
        events = self._close()
        self._start("function_call", "fc_")
        self._called = True
        text = arguments(call)
        item = replies.function_call(self._item, call, "", "in_progress")
        events += self._event("response.output_item.added", item=item)
        events += self._event("response.function_call_arguments.delta", delta=text, **self._place())
        events += self._event(
            "response.function_call_arguments.done", arguments=text, **self._place()
        )
        return events + self._done(replies.function_call(self._item, call, text, "completed"))

    def _start(self, kind: str, prefix: str) -> None:
        self._open, self._item, self._parts = kind, ids.numbered(prefix), []

    def _close(self) -> bytes:
        """Complete the open item, if there is one."""
        text = "".join(self._parts)
        if self._open == "reasoning":
            event = self._event(
                "response.reasoning_summary_text.done", summary_index=0, text=text, **self._place()
            )
            return event + self._done(replies.reasoning(self._item, text))
        if self._open == "message":
            place = self._place() | {"content_index": 0}
            events = self._event("response.output_text.done", text=text, logprobs=[], **place)
            part = replies.text_part(text)
            events += self._event("response.content_part.done", part=part, **place)
            return events + self._done(replies.message(self._item, text))
        return b""

    def _done(self, item: Json) -> bytes:
        event = self._event("response.output_item.done", item=item)
        self._output.append(item)
        self._open = ""
        return event

    def _place(self) -> Json:
        return {"item_id": self._item, "output_index": len(self._output)}

    def _event(self, kind: str, **data: Any) -> bytes:
        if "item" in data:
            data["output_index"] = len(self._output)
        data |= {"type": kind, "sequence_number": self._sequence}
        self._sequence += 1
        return sse.event(kind, goencode.encode_any(data))

    # -------------------------------------------------------------------------------------- whole

    def whole(self, piece: Piece, done: wire.Done) -> bytes:
        """Thoughts, text, calls. Without calls there is a message, if an empty one."""
        number = self._id.removeprefix("resp_")
        output = []
        if piece.thinking:
            output.append(replies.reasoning(f"rs_{self._id}", piece.thinking))
        if piece.content or not piece.tool_calls:
            output.append(replies.message(f"msg_{number}", piece.content))
        for at, call in enumerate(piece.tool_calls):
            _refuse_search(call, self._searches)
            item_id = f"fc_{self._id}_{at}"
            output.append(replies.function_call(item_id, call, arguments(call), "completed"))
        body = replies.response(self._request, self._id, "completed", output, done)
        return goencode.encode_any(body, sort_keys=False) + b"\n"


def _refuse_search(call: wire.ToolCall, builtin: bool) -> None:
    if builtin and call.name == websearch.NAME:
        raise Forbidden(websearch.UNAVAILABLE)
