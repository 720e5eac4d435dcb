"""The store: the only writer of Ollama's model folder, and its reader."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeAlias, TypeVar

import msgspec
import structlog

from lhama.daemon.errors import ModelNotFound, StoreError
from lhama.daemon.protocol import tools
from lhama.daemon.protocol.types import Message
from lhama.daemon.store import configblob, files, manifests
from lhama.daemon.store.blobs import Blobs
from lhama.daemon.store.catalogue import Catalogue
from lhama.daemon.store.digests import Digest
from lhama.daemon.store.headers import HeaderCache
from lhama.daemon.store.manifests import Layer, Manifest
from lhama.daemon.store.model import StoredModel
from lhama.daemon.store.names import ModelName
from lhama.daemon.store.ownership import Ownership
from lhama.plugins.gguf import GGUF

log = structlog.get_logger(__name__)

T = TypeVar("T")
_Parameters: TypeAlias = dict[str, Any]
_Messages: TypeAlias = list[Message]


class Store:
    """A catalogue of manifests and the blobs they name; the one place that changes them together.

    Methods block on the disk and may be called from any thread.
    """

    def __init__(self, root: Path, *, prune: bool = True, go_template: bool | None = None) -> None:
        """``prune`` and ``go_template`` are ``OLLAMA_NOPRUNE`` negated and ``OLLAMA_GO_TEMPLATE``."""
        self.root = root.absolute()
        self.prune = prune
        self.go_template = go_template
        self.blobs = Blobs(self.root)
        self.writable = False
        """Set by ``open``."""
        self.catalogue = Catalogue(self.root)
        self._lock = threading.RLock()
        """Held while manifests change and while blobs without one are removed."""
        self._pins: Counter[Digest] = Counter()
        self._pins_lock = threading.Lock()
        """Held for moments only, so that the event loop may pin: a blob is removed, or pinned."""
        self._headers = HeaderCache()
        self._ownership = Ownership(self.root)

    # -------------------------------------------------------------------------------- lifetime

    def open(self) -> None:
        """Take the store for this process, repair and prune it.

        A store that cannot be written is opened read-only: models run, changes fail. Raises
        ``StoreError`` if another daemon has it.
        """
        try:
            files.make_folders(self.blobs.folder)
            files.make_folders(self.catalogue.folder)
            self._ownership.take()
            self.writable = True
            self._tidy()
        except OSError as error:
            self.writable = False
            if not self.catalogue.folder.is_dir():
                raise files.failure(error, "opening it", self.root) from error
            log.warning("model store opened read-only", root=str(self.root), reason=str(error))

    def close(self) -> None:
        self._ownership.give_up()
        self.writable = False

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.close()

    def _tidy(self) -> None:
        """What start-up does: finish renames of old versions, drop leftovers and orphans."""
        self.blobs.repair()
        self.catalogue.remove_leftovers()
        if not self.prune:
            return
        found, corrupt = self.catalogue.scan()
        if corrupt:
            log.warning("unused blobs are kept: a corrupt manifest may name them", count=corrupt)
            return
        removed = self.blobs.prune({d for m in found.values() for d in m.digests})
        if removed:
            log.info("removed unused blobs", count=len(removed))
        self.catalogue.remove_empty_folders()

    # --------------------------------------------------------------------------------- reading

    def get(self, name: ModelName | str, *, missing: str | None = None) -> StoredModel:
        """A model with all that its small blobs say. Case in the name does not matter.

        Raises ``InvalidName``, ``ModelNotFound`` with the text ``missing`` (default: Ollama's
        ``model 'x' not found`` with the spelling given), ``StoreError`` for a damaged model.
        """
        parsed = ModelName.parse(name) if isinstance(name, str) else name
        manifest = self.catalogue.read(parsed)
        if manifest is None:
            spelled = name if isinstance(name, str) else name.short
            raise ModelNotFound(missing if missing is not None else f"model '{spelled}' not found")
        return self._load(self.catalogue.resolve(parsed), manifest)

    def list(self) -> Sequence[StoredModel]:
        """Every readable model, the most recently modified first; damaged ones are logged."""
        models = []
        for name, manifest in self.catalogue.scan()[0].items():
            try:
                models.append(self._load(name, manifest))
            except StoreError as error:
                log.warning("model skipped", model=name.short, error=error.message)
        models.sort(key=lambda model: model.name)
        models.sort(key=lambda model: -(model.modified_ns // 1_000_000_000))
        return models

    def _load(self, name: ModelName, manifest: Manifest) -> StoredModel:
        def paths(media_type: str) -> tuple[Path, ...]:
            return tuple(self.blobs.path(la.digest) for la in manifest.layers_of(media_type))

        def text(*media_types: str) -> str:
            layers = manifest.layers_of(*media_types)
            return self._text(layers[-1]) if layers else ""

        config = manifest.config
        turns = self._json(manifest.layers_of(manifests.MESSAGES), _Messages)
        return StoredModel(
            name=name,
            manifest=manifest,
            config=configblob.decode(self.blobs.read(config.digest))
            if config
            else configblob.Config(),
            weights=paths(manifests.MODEL),
            projectors=paths(manifests.PROJECTOR),
            adapters=paths(manifests.ADAPTER),
            drafts=paths(manifests.DRAFT),
            go_template=text(manifests.TEMPLATE, manifests.PROMPT),
            system=text(manifests.SYSTEM),
            parameters=self._json(manifest.layers_of(manifests.PARAMS), _Parameters) or {},
            messages=tuple(tools.message(turn) for turn in turns or ()),
            licenses=tuple(map(self._text, manifest.layers_of(manifests.LICENSE))),
            go_setting=self.go_template,
            read_header=self.header,
        )

    def _text(self, layer: Layer) -> str:
        return self.blobs.read(layer.digest).decode("utf-8", "replace")

    def _json(self, layers: Sequence[Layer], into: type[T]) -> T | None:
        if not layers:
            return None
        try:
            data = self.blobs.read(layers[-1].digest)
            return None if data.strip() == b"null" else msgspec.json.decode(data, type=into)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise StoreError(f"blob {layers[-1].digest} is corrupt: {error}") from None

    def header(self, path: Path) -> GGUF:
        """A GGUF file's header, cached while the file does not change."""
        return self._headers.read(path)

    # --------------------------------------------------------------------------------- writing

    def require_writable(self) -> None:
        """Raise ``StoreError`` where the store cannot be written."""
        if not self.writable:
            raise StoreError(
                f"the model store {self.root} cannot be written: make it writable, "
                "or set OLLAMA_MODELS to another folder"
            )

    @contextmanager
    def changing(self, doing: str) -> Iterator[None]:
        """Hold the store for one change. Raises ``StoreError`` where it cannot be written."""
        self.require_writable()
        with self._lock:
            try:
                yield
            except OSError as error:
                raise files.failure(error, doing, self.root) from error

    @contextmanager
    def pinned(self, digests: Iterable[Digest]) -> Iterator[Callable[[Digest], None]]:
        """Keep blobs from removal until their manifest is written; the result pins more."""
        held: list[Digest] = []

        def pin(digest: Digest) -> None:
            with self._pins_lock:
                self._pins[digest] += 1
                held.append(digest)

        try:
            for digest in digests:
                pin(digest)
            yield pin
        finally:
            with self._pins_lock:
                self._pins.subtract(held)
                self._pins += Counter()  # drops the zeros

    def write_manifest(
        self, name: ModelName, manifest: Manifest, data: bytes = b""
    ) -> frozenset[Digest]:
        """Make a model appear, or replace one, in one step: all its blobs must be there.

        ``data`` is the manifest in bytes that are not ours to change: its digest is the model's.
        Returns the blobs of the model it replaced, for ``remove_unused``. Raises ``StoreError``.
        """
        with self.changing(f"writing the manifest of {name.short}"):
            for layer in manifest.all_layers:
                if not self.blobs.exists(layer.digest):
                    raise StoreError(f"blob {layer.digest} vanished: send it again")
            name = self.catalogue.resolve(name)
            old = self.catalogue.readable(name)
            self.catalogue.put(name, data or manifests.encode(manifest))
            return old.digests if old else frozenset()

    def remove_unused(self, replaced: Iterable[Digest]) -> None:
        """Remove those of the blobs that no model names now, unless pruning is off."""
        if self.prune and replaced:
            with self.changing("removing unused blobs"):
                self._remove_unused(replaced)

    def discard(self, made: Iterable[Digest]) -> None:
        """Remove those of the blobs, just made, that no model names: their create failed, or they
        were steps on its way."""
        if made:
            with self.changing("removing unused blobs"):
                self._remove_unused(made)

    def copy(self, source: ModelName, target: ModelName) -> None:
        """Give a model a second name; blobs are shared. Onto itself it does nothing.

        Raises ``ModelNotFound`` and ``StoreError``.
        """
        with self.changing(f"copying {source.short}"):
            source, target = map(self.catalogue.resolve, (source, target))
            try:
                data = self.catalogue.path(source).read_bytes()
                manifests.decode(data)
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
                raise ModelNotFound(f'model "{source.short}" not found') from None
            if source != target:
                self.catalogue.put(target, data)

    def delete(self, name: ModelName) -> None:
        """Remove a model and the blobs no other model names.

        Raises ``ModelNotFound`` and ``StoreError``. A corrupt manifest is removed without its blobs.
        """
        with self.changing(f"deleting {name.short}"):
            name = self.catalogue.resolve(name)
            manifest = self.catalogue.readable(name)
            if not self.catalogue.remove(name):
                raise ModelNotFound(f"model '{name.short}' not found")
            if manifest is not None:
                self._remove_unused(manifest.digests)

    def _remove_unused(self, candidates: Iterable[Digest]) -> None:
        """Corrupt manifests do not count, as with Ollama: they would keep every blob for ever."""
        used = {
            digest for manifest in self.catalogue.scan()[0].values() for digest in manifest.digests
        }
        for digest in candidates:
            with self._pins_lock:
                if digest not in used and not self._pins[digest]:
                    self.blobs.remove(digest)
