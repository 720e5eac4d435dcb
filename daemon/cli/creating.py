"""``lhama create`` and ``lhama import``: upload what a model is made of, then create it."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from lhama.daemon import modelfile
from lhama.daemon.cli import output
from lhama.daemon.cli.client import BLOCK, Client, Json
from lhama.daemon.errors import BadRequest

if TYPE_CHECKING:
    from rich.progress import Progress

_WEIGHTS = (".gguf", ".safetensors", ".bin")
_FOLDER_PATTERNS = ("*.gguf", "*.safetensors", "*.json", "tokenizer.model")
"""What is taken of a folder named by FROM."""


def create(client: Client, model: str, file: Path, quantize: str = "") -> None:
    """Create ``model`` from the Modelfile ``file``; its paths are relative to its folder."""
    try:
        source = file.read_bytes()
    except OSError as error:
        raise BadRequest(f"cannot read the Modelfile {file}: {error.strerror}") from error
    commands = modelfile.parse(source)
    _create(client, model, commands, file.parent, {"quantize": quantize} if quantize else {})


def import_gguf(client: Client, model: str, path: Path) -> None:
    """Create ``model`` from one GGUF file."""
    if not path.is_file():
        raise BadRequest(f"no such file: {path}")
    _create(client, model, (modelfile.Command("from", str(path.absolute())),), Path(), {})


def _create(
    client: Client, model: str, commands: tuple[modelfile.Command, ...], folder: Path, extra: Json
) -> None:
    with output.progress() as bars:

        def locate(argument: str) -> dict[str, str] | None:
            found = _files(argument, folder)
            if found is None:
                return None
            return {name: _upload(client, path, bars) for name, path in found.items()}

        request = modelfile.create_request(commands, locate)
    for warning in request.warnings:
        output.note(f"warning: {warning}")
    body = {"model": model, "name": model, **request.body, **extra, "stream": True}
    with output.Waiting("creating") as waiting:
        last = ""
        for update in client.stream("/api/create", body):
            status = update.get("status", "")
            if update.get("total"):
                share = update.get("completed", 0) / update["total"]
                waiting.update(f"{status} {share:.0%}")
            elif status != last:
                waiting.update(status)
                waiting.note(status)
            last = status


def _files(argument: str, folder: Path) -> dict[str, Path] | None:
    """The files an argument names, by the name sent to the server; ``None``: a model's name."""
    path = folder / Path(argument).expanduser()
    if path.is_file():
        return {path.name: path}
    if path.is_dir():
        if found := sorted({file for p in _FOLDER_PATTERNS for file in path.glob(p)}):
            return {file.name: file for file in found}
        raise BadRequest(f"no model files in {path}: expected .gguf or .safetensors")
    if argument.startswith(("/", "./", "../", "~")) or argument.lower().endswith(_WEIGHTS):
        raise BadRequest(f"no such file: {path}")
    return None


def _upload(client: Client, path: Path, bars: Progress) -> str:
    """Bring a file to the server unless it is there; returns its digest."""
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            task = bars.add_task(f"reading {path.name}", total=size)
            hasher = hashlib.sha256()
            while block := file.read(BLOCK):
                hasher.update(block)
                bars.advance(task, len(block))
            digest = f"sha256:{hasher.hexdigest()}"
            if not client.has_blob(digest):
                file.seek(0)
                bars.reset(task, description=f"copying {path.name}")
                client.upload(digest, file, lambda sent: bars.update(task, completed=sent))
    except OSError as error:
        raise BadRequest(f"cannot read {path}: {error.strerror}") from error
    return digest
