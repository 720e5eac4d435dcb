"""``lhama create`` and ``lhama import``: upload what a model is made of, then create it."""

from __future__ import annotations

import hashlib
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from lhama.daemon import modelfile
from lhama.daemon.cli import createbody, modelfolder, output
from lhama.daemon.cli.client import BLOCK, Client, Json
from lhama.daemon.errors import BadRequest
from lhama.daemon.modelfile import Command

if TYPE_CHECKING:
    from rich.progress import Progress

_DEFAULT = Path("Modelfile")


def create(
    client: Client, model: str, file: Path | None, quantize: str = "", draft_quantize: str = ""
) -> None:
    """Create ``model`` from the Modelfile ``file``; its paths are relative to its folder.

    Without one: from ``Modelfile`` here, or else from the model files in this folder.
    """
    path = file or _DEFAULT
    if file is None and not path.exists():
        commands: tuple[Command, ...] = (Command("from", "."),)
    else:
        try:
            commands = modelfile.parse(path.read_bytes())
        except OSError as error:
            raise BadRequest(f"cannot read the Modelfile {path}: {error.strerror}") from error
    extra = {"quantize": quantize} if quantize else {}
    _create(client, model, commands, path.parent, extra, draft_quantize)


def import_gguf(client: Client, model: str, path: Path) -> None:
    """Create ``model`` from one GGUF file."""
    if path.is_dir():
        raise BadRequest(f"{path} is a folder: 'lhama create' makes models of those")
    if not path.is_file():
        raise BadRequest(f"no such file: {path}")
    _create(client, model, (Command("from", str(path.absolute())),), Path(), {})


def _create(
    client: Client,
    model: str,
    commands: tuple[Command, ...],
    folder: Path,
    extra: Json,
    draft_quantize: str = "",
) -> None:
    made = createbody.create_body(commands, partial(modelfolder.locate, relative_to=folder))
    if draft_quantize:
        if "draft_files" not in made.files:
            raise BadRequest("--draft-quantize requires a DRAFT model")
        extra = {**extra, "draft_quantize": draft_quantize}
    for warning in made.warnings:
        output.note(f"warning: {warning}")
    with output.progress() as bars:
        files = {
            field: {
                name: _upload(client, path, bars) for path, name in modelfolder.names(paths).items()
            }
            for field, paths in made.files.items()
        }
    body = {"model": model, "name": model, **made.body, **files, **extra, "stream": True}
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


def _upload(client: Client, path: Path, bars: Progress) -> str:
    """Bring a file to the server unless it is there; returns its digest."""
    try:
        size = path.stat().st_size
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
