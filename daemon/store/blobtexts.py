"""The bytes of parameter, message and license blobs, from a create request's fields."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

from lhama.daemon.errors import LhamaError
from lhama.daemon.protocol import goencode, tools
from lhama.daemon.protocol.types import Message


def parameters(values: dict[str, Any]) -> bytes:
    """Keys sorted, as Go writes a map."""
    return goencode.encode_any(values) + b"\n"


def messages(turns: Sequence[Message]) -> bytes:
    """Keys in Ollama's order, empty ones left out behind the first two."""
    return goencode.encode_any([_message(turn) for turn in turns], sort_keys=False) + b"\n"


def _message(turn: Message) -> dict[str, Any]:
    message = tools.message(turn)
    rest = {
        "thinking": message.thinking,
        "images": [base64.b64encode(image).decode() for image in message.images],
        "tool_calls": [
            {
                **({"id": call.id} if call.id else {}),
                "function": {"index": call.index, "name": call.name, "arguments": call.arguments},
            }
            for call in message.tool_calls
        ],
        "tool_name": message.tool_name,
        "tool_call_id": message.tool_call_id,
    }
    return {
        "role": message.role,
        "content": message.content,
        **{key: value for key, value in rest.items() if value},
    }


def licenses(given: Any) -> list[bytes]:
    """Texts of ``license``: one, or a list. Raises Ollama's error for another type."""
    if given is None or given == "":
        return []
    if isinstance(given, str):
        return [given.encode()]
    if not isinstance(given, list):
        raise LhamaError(f"json: cannot unmarshal {_kind(given)} into Go value of type []string")
    for item in given:
        if item is not None and not isinstance(item, str):
            raise LhamaError(f"json: cannot unmarshal {_kind(item)} into Go value of type string")
    return [(item or "").encode() for item in given]


def _kind(value: Any) -> str:
    names = {bool: "bool", dict: "object", list: "array", str: "string"}
    return names.get(type(value), "number")
