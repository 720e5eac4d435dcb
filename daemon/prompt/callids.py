"""Ids of tool calls in a conversation: clients of Ollama need not send any, templates ask for them."""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec

from lhama.daemon.wire.messages import Message, ToolCall

SHORT = 9
_NOT_ALPHANUMERIC = re.compile("[^0-9A-Za-z]")


def calls_with_ids(messages: Sequence[Message], *, short: bool) -> list[Message]:
    """Every call has an id, and every result that of its call: by name, else in order.

    ``short``: ids are nine letters and digits, made of what was given.
    """
    result: list[Message] = []
    open_: list[ToolCall] = []
    number = 0
    for message in messages:
        if message.tool_calls:
            calls = []
            for call in message.tool_calls:
                given = call.id or f"call_{number:08d}"
                calls.append(msgspec.structs.replace(call, id=_short(given) if short else given))
                number += 1
            open_ = list(calls)
            message = msgspec.structs.replace(message, tool_calls=calls)
        elif message.role == "tool":
            given = _short(message.tool_call_id) if short else message.tool_call_id
            answered = _answered(open_, given, message.tool_name)
            if answered is not None:
                open_.remove(answered)
                given = answered.id
            message = msgspec.structs.replace(message, tool_call_id=given)
        result.append(message)
    return result


def _answered(calls: Sequence[ToolCall], call_id: str, name: str) -> ToolCall | None:
    """The call that a result answers; ``None`` for a result of none."""
    if call_id:
        return next((call for call in calls if call.id == call_id), None)
    named = (call for call in calls if not name or call.name == name)
    return next(named, calls[0] if calls else None)


def _short(call_id: str) -> str:
    """The end of an id, filled up in front; empty for none."""
    plain = _NOT_ALPHANUMERIC.sub("", call_id)
    return plain[-SHORT:].rjust(SHORT, "0") if call_id else ""
