"""OpenAI's error envelope."""

from __future__ import annotations

import msgspec

from lhama.daemon.protocol import goencode

_TYPES = {400: "invalid_request_error", 401: "invalid_request_error", 404: "not_found_error"}
_CODES = {401: "invalid_api_key"}


class Error(msgspec.Struct):
    message: str
    type: str
    param: None
    code: str | None


class ErrorReply(msgspec.Struct):
    error: Error


def envelope(status: int, message: str) -> bytes:
    """The body of an error, and the data of an event that ends a stream with one."""
    kind = _TYPES.get(status, "api_error")
    return goencode.encode(ErrorReply(Error(message, kind, None, _CODES.get(status))))
