"""A model in the making: its layers and its config, not yet under a name."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from lhama.daemon.errors import BadRequest, LhamaError, ModelNotFound, StoreError
from lhama.daemon.prompt import autodetect, goparse
from lhama.daemon.protocol.types import CreateRequest
from lhama.daemon.store import blobtexts, configblob, manifests, overrides, parts
from lhama.daemon.store.configblob import Config, Draft
from lhama.daemon.store.digests import Digest
from lhama.daemon.store.manifests import Layer, Manifest
from lhama.daemon.store.names import ModelName
from lhama.daemon.store.parts import Part
from lhama.daemon.store.store import Store
from lhama.plugins import gguf
from lhama.plugins.gguf import GGUF, GGUFError

_WITH_HEADER = (manifests.MODEL, manifests.PROJECTOR, manifests.ADAPTER, manifests.DRAFT)
_RENDERERS = {
    "gemma4": "gemma4",
    "laguna": "laguna",
    "nemotron_h": "nemotron-3-nano",
    "nemotron_h_moe": "nemotron-3-nano",
    "nemotron_h_omni": "nemotron-3-nano",
}
"""Architectures whose models get a built-in renderer and parser of this name."""


class Assembly:
    """Collects layers. Its methods block on the disk; call one at a time, from any thread."""

    def __init__(self, store: Store, pin: Callable[[Digest], None]) -> None:
        self.parts: list[Part] = []
        """In the manifest's order."""
        self.made: list[Digest] = []
        """Blobs that were not there before and that no manifest names."""
        self._store = store
        self._pin = pin
        self._config = Config(architecture="amd64", os="linux")

    # ----------------------------------------------------------------------- where it begins

    def start_from(self, name: ModelName) -> None:
        """Take the layers of a model that is there. Raises ``LhamaError``."""
        manifest = self._store.catalogue.read(name)
        if manifest is None:
            raise ModelNotFound(f"model '{name.short}' not found")
        name = self._store.catalogue.resolve(name)
        if manifest.config:
            self._inherit(configblob.decode(self._store.blobs.read(manifest.config.digest)))
        for layer in manifest.layers:
            size = self._present(layer.digest)
            copied = Layer(layer.media_type, layer.digest, size, name.short, layer.name)
            header = self.header(layer.digest) if layer.media_type in _WITH_HEADER else None
            self.parts.append(Part(copied, parts.describe(copied), header))

    def _inherit(self, base: Config) -> None:
        config = self._config
        config.renderer, config.parser, config.requires = base.renderer, base.parser, base.requires
        config.model_format, config.capabilities = base.model_format, base.capabilities

    def start_remote(self, model: str, host: str) -> None:
        """Be a stub: nothing but where the model runs."""
        self._config.remote_model, self._config.remote_host = model, host

    def kind(self, files: Mapping[str, str]) -> str:
        """``safetensors`` or ``gguf``. Raises ``BadRequest`` for files no model can be made of."""
        if any(path.endswith(".safetensors") for path in files):
            return "safetensors"
        if any(path.endswith(".gguf") or self._is_gguf(files[path]) for path in files):
            return "gguf"
        raise BadRequest("unknown type")

    def uploaded(self, text: str) -> Path:
        """The file of an uploaded blob, held. Raises ``LhamaError``."""
        try:
            digest = Digest.parse(text)
        except BadRequest as error:
            raise LhamaError(error.message) from None  # 500 at this place, as Ollama has it
        self._present(digest)
        return self._store.blobs.path(digest)

    def read_gguf(self, text: str, name: str, media_type: str = "") -> Part:
        """An uploaded GGUF file, in the role its metadata name unless one is given."""
        self.uploaded(text)
        digest = Digest.parse(text)
        if not self._is_gguf(text):
            raise BadRequest("supplied file was not in GGUF format")
        header = self.header(digest)
        size = self._store.blobs.size(digest)
        layer = Layer(media_type or parts.role(header), digest, size, name)
        return Part(layer, parts.describe(layer), header, uploaded=True)

    def add_written(self, path: Path, media_type: str) -> Part:
        """Add a GGUF file that was made for this model; ``path`` is temporary."""
        self.parts.append(self._written(path, media_type))
        return self.parts[-1]

    def complete_files(self) -> None:
        """Check that the files make one model, and find its template among the known ones."""
        models = self.of_type(manifests.MODEL)
        if len(models) != 1:
            raise BadRequest(f"one model file is needed, {len(models)} were given")
        header = models[0].header
        assert header is not None
        detected = autodetect.detect(header.get_str("tokenizer.chat_template"))
        if detected is not None:
            self._add_text(manifests.TEMPLATE, detected.template.encode())
            self.parts[-1].status = f"using autodetected template {detected.name}"
            if detected.parameters:
                self._add_text(manifests.PARAMS, blobtexts.parameters(detected.parameters))

    def is_missing(self, name: ModelName) -> bool:
        return self._store.catalogue.read(name) is None

    def of_type(self, media_type: str) -> list[Part]:
        return [part for part in self.parts if part.layer.media_type == media_type]

    def path(self, digest: Digest) -> Path:
        return self._store.blobs.path(digest)

    # ---------------------------------------------------------------------------- written anew

    def replace(self, part: Part, path: Path) -> None:
        """Put the file at ``path``, written from a part's own, in its place."""
        new = self._written(path, part.layer.media_type)
        part.layer, part.status, part.header = new.layer, new.status, new.header
        part.shards = ()

    def keep(self, part: Part) -> None:
        """Leave an uploaded model as it is. Ollama's layer would have no ``from``: its copy has
        none."""
        part.layer = dataclasses.replace(part.layer, source="")

    def _written(self, path: Path, media_type: str) -> Part:
        header = self._read(path, "the file that was written")
        size = path.stat().st_size
        digest, new = self._store.blobs.take(path)
        if new:
            self.made.append(digest)
        self._pin(digest)
        layer = Layer(media_type, digest, size)
        return Part(layer, parts.describe(layer, new=new), header, uploaded=True)

    # ------------------------------------------------------------------- what is put on top

    def configure(self, request: CreateRequest) -> None:
        """The config's fields by the request. Raises ``BadRequest`` for ``info`` of other types."""
        config = self._config
        config.renderer = request.renderer or config.renderer
        config.parser = request.parser or config.parser
        config.requires = request.requires or config.requires
        if request.info is not None:
            overrides.apply(request.info, config)

    def apply(self, request: CreateRequest) -> None:
        """Everything else of the request. Raises ``BadRequest`` and other ``LhamaError``s."""
        parameters = dict(request.parameters or {})
        self._describe(parameters)
        if request.template:
            goparse.validate(request.template)
            self._replace(manifests.TEMPLATE, request.template.encode())
        if request.system:
            self._replace(manifests.SYSTEM, request.system.encode())
        for text in blobtexts.licenses(request.license):
            self._add_text(manifests.LICENSE, text)
        self._set_parameters(parameters)
        if request.messages:
            self._replace(manifests.MESSAGES, blobtexts.messages(request.messages))

    def _describe(self, parameters: dict[str, Any]) -> None:
        """Fill the config from the weights; some architectures bring a renderer and a stop."""
        config = self._config
        for part in self.parts:
            header = part.header
            if header is None:
                continue
            family = header.architecture or "unknown"
            if part.layer.media_type == manifests.DRAFT:
                config.draft = Draft(model_format="gguf", architecture=family)
            if part.layer.media_type != manifests.MODEL:
                continue
            config.model_format = config.model_format or "gguf"
            config.model_family = config.model_family or family
            config.model_type = config.model_type or configblob.human_number(header.parameter_count)
            file_type = configblob.file_type_name(header.get_int("general.file_type"))
            config.file_type = config.file_type or file_type
            config.model_families = [*(config.model_families or []), family]
            known = _RENDERERS.get(family)
            if known and not (config.renderer and config.parser):
                config.renderer = config.renderer or known
                config.parser = config.parser or known
                if family == "gemma4":
                    parameters.setdefault("stop", ["<turn|>"])

    def _set_parameters(self, given: dict[str, Any]) -> None:
        """Merge with the inherited ones, key by key: the request wins, lists are replaced whole."""
        for part in self.of_type(manifests.PARAMS):
            digest = part.layer.digest
            try:
                inherited = msgspec.json.decode(
                    self._store.blobs.read(digest), type=dict[str, Any] | None
                )
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                raise StoreError(f"blob {digest} is corrupt: {error}") from None
            given = {**(inherited or {}), **given}
        if given:
            self._replace(manifests.PARAMS, blobtexts.parameters(given))

    # -------------------------------------------------------------------------------- the end

    def publish(self, name: ModelName) -> frozenset[Digest]:
        """Write config and manifest: from here on the model is there.

        Returns the blobs of the model it replaced. Raises ``StoreError``.
        """
        data = configblob.encode(self._config)
        digest, _ = self._write(data)
        config = Layer(manifests.CONFIG, digest, len(data))
        manifest = Manifest(config, tuple(part.layer for part in self.parts))
        replaced = self._store.write_manifest(name, manifest)
        self.made[:] = [digest for digest in self.made if digest not in manifest.digests]
        return replaced

    # --------------------------------------------------------------------------------- layers

    def _add_text(self, media_type: str, data: bytes) -> None:
        digest, new = self._write(data)
        layer = Layer(media_type, digest, len(data))
        self.parts.append(Part(layer, parts.describe(layer, new=new)))

    def _replace(self, media_type: str, data: bytes) -> None:
        self.parts = [part for part in self.parts if part.layer.media_type != media_type]
        self._add_text(media_type, data)

    def _write(self, data: bytes) -> tuple[Digest, bool]:
        self._pin(Digest.of(data))
        digest, new = self._store.blobs.write(data)
        if new:
            self.made.append(digest)
        return digest, new

    def _present(self, digest: Digest) -> int:
        """Hold a blob that must be there and return its size."""
        self._pin(digest)
        self._store.blobs.touch(digest)
        try:
            return self._store.blobs.size(digest)
        except FileNotFoundError:
            # Ollama's words: its clients know the file by its digest in them.
            path = self._store.blobs.path(digest)
            raise StoreError(f"open {path}: no such file or directory") from None

    def _is_gguf(self, text: str) -> bool:
        try:
            with self._store.blobs.path(Digest.parse(text)).open("rb") as file:
                return file.read(4) == gguf.MAGIC
        except (BadRequest, OSError):
            return False

    def header(self, digest: Digest) -> GGUF:
        """A blob's header. Raises ``LhamaError`` for one that cannot be trusted."""
        return self._read(self._store.blobs.path(digest), f"the GGUF file {digest}")

    def _read(self, path: Path, what: str) -> GGUF:
        try:
            return self._store.header(path)
        except GGUFError as error:
            raise BadRequest(f"{what} is damaged: {error}") from None
        except OSError as error:
            raise StoreError(f"{what} cannot be read: {error.strerror}") from error
