"""The daemon's one error tree. Each class knows its HTTP status; web encodes them in one place.

Messages are part of Ollama's wire: clients match on their text, so they are kept to the letter.
"""

from __future__ import annotations


class LhamaError(Exception):
    """Base of every error that has an answer for the client; ``status`` is that answer's."""

    status = 500

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        if status is not None:
            self.status = status


class BadRequest(LhamaError):
    status = 400


class Malformed(BadRequest):
    """A body that cannot be read as the request it should be; no model was looked at."""


class InvalidName(BadRequest):
    """A model name that cannot be one."""


class InvalidDigest(BadRequest):
    """A digest that is none; never joined into a path."""


class Unauthorized(LhamaError):
    """No API key, or none of the daemon's."""

    status = 401


class Forbidden(LhamaError):
    status = 403


class CloudDisabled(Forbidden):
    """Asked for what runs on ollama.com: this daemon never calls it."""


class NotFound(LhamaError):
    status = 404


class ModelNotFound(NotFound):
    """No such model in the store."""


class Busy(LhamaError):
    """More requests than may wait (Ollama's text, two spaces and all)."""

    status = 503

    def __init__(
        self, message: str = "server busy, please try again.  maximum pending requests exceeded"
    ) -> None:
        super().__init__(message)


class ShuttingDown(Busy):
    """The daemon finishes what it began and takes nothing new."""

    def __init__(self) -> None:
        super().__init__("the server is shutting down")


class StoreError(LhamaError):
    """Reading or writing the model store failed: disk full, read-only, corrupt."""


class DiskFull(StoreError):
    """There is no room for what was to be written."""


class RegistryError(LhamaError):
    """A registry refused, failed or lied; the text is what Ollama says then."""


class LoadError(LhamaError):
    """A model could not be loaded."""


class RunnerLost(LhamaError):
    """The runner process died or hung while it served this request."""


class RunnerFailed(LhamaError):
    """The runner refused or failed one request.

    ``kind`` non-empty: the text reaches clients as llama-server's JSON error inside Ollama's,
    ``{"error":{"code":…,"message":…,"type":kind, …details}}``, since clients of Ollama see that.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int = 500,
        kind: str = "",
        details: dict[str, int] | None = None,
    ) -> None:
        super().__init__(message, status=status)
        self.kind = kind
        self.details = details or {}
