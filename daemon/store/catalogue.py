"""The catalogue: which models there are, by the manifests on the disk."""

from __future__ import annotations

import errno
import glob
import os
from collections.abc import Iterator
from pathlib import Path

import structlog

from lhama.daemon.errors import InvalidName, StoreError
from lhama.daemon.store import files, manifests
from lhama.daemon.store.manifests import Manifest
from lhama.daemon.store.names import ModelName

log = structlog.get_logger(__name__)


class Catalogue:
    """``<root>/manifests/<host>/<namespace>/<model>/<tag>``. It holds no lock: the store does."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.folder = root / "manifests"

    # --------------------------------------------------------------------------------- reading

    def path(self, name: ModelName) -> Path:
        """Where a model's manifest lies, if there is one."""
        return self.folder / name.path

    def resolve(self, name: ModelName) -> ModelName:
        """The name in the spelling that is in use: each part as any model has it, if one does."""
        if os.path.exists(self.path(name)):  # a name too long for a file is none
            return name
        known = [other.parts for other in self._listed()]

        def respelled(at: int, part: str) -> str:
            spellings = {parts[at] for parts in known if parts[at].lower() == part.lower()}
            return part if part in spellings or not spellings else min(spellings)

        host, namespace, model, tag = (respelled(*part) for part in enumerate(name.parts))
        return ModelName(host, namespace, model, tag, name.scheme)

    def read(self, name: ModelName) -> Manifest | None:
        """A model's manifest, or ``None`` if there is no such model. Raises ``StoreError``."""
        path = self.folder / self.resolve(name).path
        try:
            return manifests.read(path)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:
                return None
            raise files.failure(
                error, f"reading the manifest of {name.short}", self._root
            ) from error
        except StoreError as error:
            raise StoreError(f"{error.message} ({path}): pull or create the model again") from None

    def readable(self, name: ModelName) -> Manifest | None:
        """As ``read``; ``None`` for a damaged one, too."""
        try:
            return self.read(name)
        except StoreError:
            return None

    def scan(self) -> tuple[dict[ModelName, Manifest], int]:
        """All manifests by name, and how many files are corrupt or misnamed."""
        found: dict[ModelName, Manifest] = {}
        corrupt = 0
        for name in self._listed():
            path = self.path(name)
            try:
                found[name] = manifests.read(path)
            except FileNotFoundError:
                continue  # deleted between the listing and the reading
            except (StoreError, OSError) as error:
                corrupt += 1
                log.warning("manifest skipped", path=str(path), error=str(error))
        return found, corrupt

    def _listed(self) -> Iterator[ModelName]:
        """The names of all manifests, read or not; hidden files are none."""
        # Unlike pathlib's, this glob takes a folder that vanishes meanwhile for an empty one.
        for path in sorted(glob.iglob("*/*/*/*", root_dir=self.folder)):
            if (self.folder / path).is_dir():
                continue
            try:
                yield ModelName.from_path(Path(path))
            except InvalidName:
                log.warning("no model's name: skipped", path=str(self.folder / path))

    # --------------------------------------------------------------------------------- writing

    def put(self, name: ModelName, data: bytes) -> None:
        """Write a manifest, or replace it, in one step. Raises ``OSError``, like the rest."""
        path = self.path(name)
        files.make_folders(path.parent)
        files.write_durably(path, data)

    def remove(self, name: ModelName) -> bool:
        """Remove a manifest and the folders that are empty then; False if there is none."""
        path = self.path(name)
        if not os.path.isfile(path):
            return False
        path.unlink()
        files.sync_folder(path.parent)
        for folder in path.parents[:3]:
            if any(folder.iterdir()):
                break
            folder.rmdir()
        return True

    def remove_leftovers(self) -> None:
        """Temporary files of a daemon that was killed."""
        for path in self.folder.rglob(files.TEMPORARY_PREFIX + "*"):
            path.unlink(missing_ok=True)

    def remove_empty_folders(self) -> None:
        for path, _, _ in os.walk(self.folder, topdown=False):
            if path != str(self.folder) and not os.listdir(path):
                os.rmdir(path)
