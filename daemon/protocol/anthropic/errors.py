"""Anthropic's error envelope."""

from __future__ import annotations

import msgspec

from lhama.daemon.protocol import goencode, ids

_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
}


class Error(msgspec.Struct):
    type: str
    message: str


class ErrorReply(msgspec.Struct):
    type: str
    error: Error
    request_id: str


def envelope(status: int, message: str) -> bytes:
    """The body of an error, and the data of an error event."""
    error = Error(_TYPES.get(status, "api_error"), message)
    return goencode.encode(ErrorReply("error", error, ids.hexadecimal("req")))
