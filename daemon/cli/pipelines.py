"""What a lhama says of its assembly lines, for ``top``, ``trace`` and ``bench``."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

import msgspec

from lhama.daemon.cli.client import Client, ServerError
from lhama.daemon.errors import LhamaError, ModelNotFound
from lhama.daemon.protocol.pipelines import BackendsReply, Pipeline, PipelinesReply


class NotLhama(LhamaError):
    """The server has no assembly line to show."""


def fetch(client: Client, steps: int = 0) -> PipelinesReply:
    """All loaded models, each with its last ``steps`` steps."""
    return msgspec.convert(
        _call(client, "get", f"/api/lhama/pipelines?steps={steps}"), PipelinesReply
    )


def fetch_one(client: Client, model: str, steps: int = 0) -> Pipeline:
    """One loaded model; raises ``ModelNotFound`` if it is not loaded."""
    client.post("/api/show", {"model": model})  # says in words what is wrong with a name
    wanted = model if ":" in model.rpartition("/")[2] else f"{model}:latest"
    for pipeline in fetch(client, steps).models:
        if pipeline.model.lower() in (model.lower(), wanted.lower()):
            return pipeline
    raise ModelNotFound(
        f"model '{model}' is not loaded: ask it something first, as in 'lhama run {model} hello'"
    )


def verdicts(client: Client, model: str) -> BackendsReply:
    """Which backends could run a model, the best first."""
    path = f"/api/lhama/backends?{urlencode({'model': model})}"
    return msgspec.convert(_call(client, "get", path), BackendsReply)


def arrange(client: Client, model: str, pipeline: str) -> None:
    """Turn a loaded model's pipeline ``on`` or ``off``, or leave it to the runner (``auto``)."""
    _call(client, "post", "/api/lhama/pipeline", {"model": model, "pipeline": pipeline})


def _call(client: Client, verb: str, path: str, *body: dict[str, Any]) -> dict[str, Any]:
    try:
        answer: dict[str, Any] = getattr(client, verb)(path, *body)
        return answer
    except ServerError as error:
        if error.status == 404 and error.message.startswith("404"):
            raise NotLhama(
                f"the server at {client.url} is no lhama: it has no assembly line to show"
            ) from None
        raise
