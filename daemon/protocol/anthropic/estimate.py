"""How many tokens a prompt may have, guessed from its length before a model has seen it.

The first event of a stream has to name a number; the last names the true one. Ollama guesses so.
"""

from __future__ import annotations

from typing import Any

from lhama.daemon.errors import Malformed
from lhama.daemon.protocol import gojson
from lhama.daemon.protocol.anthropic.requests import ContentBlock, MessagesRequest
from lhama.daemon.protocol.goencode import encode, encode_any

BYTES_A_TOKEN = 4


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
    return size + (len(encode(block)) if block.type in ("tool_use", "tool_result") else 0)


def _system(system: Any) -> int:
    if system is None or isinstance(system, str):
        return len((system or "").encode())
    if not isinstance(system, list):
        return len(encode_any(system))
    size = 0
    for item in system:
        try:
            size += _block(gojson.bind(item, ContentBlock))
        except Malformed:
            continue  # what is no block counts nothing
    return size
