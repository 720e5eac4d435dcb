"""Files that are there whole or not at all, and what to say when the disk refuses."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from pathlib import Path

from lhama.daemon.errors import DiskFull, StoreError

TEMPORARY_PREFIX = ".lhama-"
"""Beginning of a temporary file's name; hidden, so neither listing nor Ollama takes it up."""


def failure(error: OSError, doing: str, root: Path) -> StoreError:
    """What an ``OSError`` means for the user, who was ``doing`` something in the store."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return DiskFull(f"no space left on device while {doing}: free some space in {root}")
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return StoreError(
            f"the model store {root} cannot be written while {doing} "
            f"({os.strerror(error.errno)}): make it writable, or set OLLAMA_MODELS to another folder"
        )
    return StoreError(f"the model store {root} failed while {doing}: {error.strerror or error}")


def temporary(folder: Path) -> Path:
    """A fresh name for a temporary file in ``folder``."""
    return folder / f"{TEMPORARY_PREFIX}{os.getpid()}-{secrets.token_hex(8)}"


def is_relative(path: str) -> bool:
    """Whether a path stays below its root: not absolute, no ``.`` or ``..`` in it (Go's ValidPath)."""
    return path == "." or all(part not in ("", ".", "..") for part in path.split("/"))


def remove(path: Path) -> None:
    """A temporary file, or a temporary folder with all in it; none is fine."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def write_durably(path: Path, data: bytes) -> None:
    """Replace ``path`` by ``data``: after a crash at any moment the old file is there, or the new.

    Raises ``OSError`` with the temporary file removed.
    """
    partial = temporary(path.parent)
    try:
        with partial.open("wb") as file:
            file.write(data)
            sync(file.fileno())
        publish(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def publish(partial: Path, path: Path) -> None:
    """Give a synced temporary file its name, and make the name last."""
    partial.replace(path)
    sync_folder(path.parent)


def sync(fd: int) -> None:
    os.fsync(fd)


def sync_folder(folder: Path) -> None:
    """Write a folder's names to the disk: a rename lasts only after that."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        sync(fd)
    finally:
        os.close(fd)


def make_folders(path: Path) -> None:
    """Make a folder and its missing parents, each durably in the one above."""
    if path.is_dir():
        return
    make_folders(path.parent)
    path.mkdir(mode=0o755, exist_ok=True)
    sync_folder(path.parent)
