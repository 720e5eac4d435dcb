"""``list``, ``ps``, ``cp``, ``rm`` and ``stop``: what is in the store and what is loaded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from lhama.daemon.cli import output, pipelines
from lhama.daemon.cli.client import Client, ServerError
from lhama.daemon.errors import LhamaError, ModelNotFound

SHORT_DIGEST = 12


def list_models(client: Client, prefix: str = "") -> None:
    rows = [
        (
            model["name"],
            model["digest"][:SHORT_DIGEST],
            "-" if model.get("remote_model") else output.size(model["size"]),
            output.moment(model["modified_at"]),
        )
        for model in client.get("/api/tags")["models"]
        if model["name"].lower().startswith(prefix.lower())
    ]
    output.say(output.table(("NAME", "ID", "SIZE", "MODIFIED"), rows))


def running(client: Client) -> None:
    models = client.get("/api/ps")["models"]
    rows = [
        (
            model["name"],
            model["digest"][:SHORT_DIGEST],
            output.size(model["size"]),
            processor(model["size"], model.get("size_vram", 0)),
            str(model.get("context_length", 0)),
            "Stopping..."
            if output.has_passed(model["expires_at"])
            else output.moment(model["expires_at"]),
        )
        for model in models
    ]
    header = ("NAME", "ID", "SIZE", "PROCESSOR", "CONTEXT", "UNTIL")
    output.say(output.table(header, rows))
    for line in _backends(client, [model["name"] for model in models]):
        output.say(line)


def _backends(client: Client, models: Sequence[str]) -> Iterator[str]:
    """Which backend runs each model and why, if the server is a lhama."""
    try:
        found = {one.model: one for one in pipelines.fetch(client).models} if models else {}
    except LhamaError:
        return
    for one in filter(None, map(found.get, models)):
        why = f": {one.reason}" if one.reason else ""
        yield f"{one.model} runs on {one.backend}, {one.device}{why}"


def processor(size: int, on_device: int) -> str:
    """Where a model lies: ``100% GPU``, ``100% CPU``, ``41%/59% CPU/GPU``; a dash if not here."""
    if size == 0:
        return "-"
    if on_device == 0:
        return "100% CPU"
    if on_device == size:
        return "100% GPU"
    if on_device > size:
        return "Unknown"
    cpu = round((size - on_device) / size * 100)
    return f"{cpu}%/{100 - cpu}% CPU/GPU"


def copy(client: Client, source: str, destination: str) -> None:
    client.post("/api/copy", {"source": source, "destination": destination})
    output.say(f"copied '{source}' to '{destination}'")


def remove(client: Client, names: Iterable[str]) -> None:
    """Unload and delete each model; the first that fails ends it."""
    for name in names:
        try:
            _unload(client, name)
        except ServerError as error:
            if "not found" not in error.message:
                raise
        client.delete("/api/delete", {"model": name, "name": name})
        output.say(f"deleted '{name}'")


def stop(client: Client, name: str) -> None:
    try:
        _unload(client, name)
    except ServerError as error:
        if "not found" in error.message:
            raise ModelNotFound(f'couldn\'t find model "{name}" to stop') from None
        raise


def _unload(client: Client, name: str) -> None:
    client.post("/api/generate", {"model": name, "prompt": "", "keep_alive": "0s", "stream": False})
