"""How many tokens a prompt may have, guessed from its length before a model has seen it.

The first event of a stream has to name a number; the last names the true one. Ollama guesses so.
"""

from __future__ import annotations

from typing import Any

import msgspec

from lhama.daemon.protocol.anthropic.requests import ContentBlock, MessagesRequest

BYTES_A_TOKEN = 4

_encode = msgspec.json.Encoder().encode


def input_tokens(request: MessagesRequest) -> int:
    """At least one."""
    size = _system(request.system)
    for message in request.messages:
        size += len(message.role.encode()) + sum(map(_block, message.content))
    for tool in request.tools:
        size += len(tool.name.encode()) + len(tool.description.encode())
        size += len(bytes(tool.input_schema))
    return max(size // BYTES_A_TOKEN, 1)


def _block(block: ContentBlock) -> int:
    size = len((block.text or "").encode()) + len((block.thinking or "").encode())
    # These travel to the model as JSON.
    return size + (len(_encode(block)) if block.type in ("tool_use", "tool_result") else 0)


def _system(system: Any) -> int:
    if isinstance(system, list):
        texts = (block.get("text") for block in system if isinstance(block, dict))
        return sum(len(text.encode()) for text in texts if isinstance(text, str))
    return len(system.encode()) if isinstance(system, str) else 0
