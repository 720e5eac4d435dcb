"""From an error to the frame that ends one request."""

from __future__ import annotations

import traceback

from lhama.daemon.errors import LhamaError, RunnerFailed
from lhama.daemon.wire.messages import Failed
from lhama.plugins.backend import BackendError
from lhama.plugins.text import TextError


def failure(request_id: int, error: Exception) -> Failed:
    """What the daemon is told of ``error``; one that nobody foresaw is also logged."""
    match error:
        case RunnerFailed():
            return Failed(request_id, error.message, error.status, error.kind, error.details)
        case LhamaError():
            return Failed(request_id, error.message, error.status)
        case TextError():
            return Failed(request_id, str(error), error.status)
        case BackendError():
            return Failed(request_id, str(error))
        case _:
            traceback.print_exception(error)
            return Failed(request_id, f"{type(error).__name__}: {error}")
