"""A model in the making: its layers and its config, not yet under a name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from lhama.daemon.errors import BadRequest, Forbidden, LhamaError, ModelNotFound, StoreError
from lhama.daemon.prompt import autodetect, goparse
from lhama.daemon.protocol.source import split_source
from lhama.daemon.protocol.types import CreateRequest
from lhama.daemon.store import blobtexts, configblob, manifests, overrides
from lhama.daemon.store.configblob import Config
from lhama.daemon.store.digests import Digest
from lhama.daemon.store.manifests import Layer, Manifest
from lhama.daemon.store.names import ModelName
from lhama.daemon.store.store import Store
from lhama.plugins import gguf
from lhama.plugins.gguf import GGUF, GGUFError

_QUANTIZED_TYPES = ("F32", "F16", "BF16", "Q8_0", "Q4_K_S", "Q4_K_M", "Q4_K")
_FLOAT_TYPES = {0: "F32", 1: "F16", 32: "BF16"}
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
        self.statuses: list[str] = []
        """One line for each layer, filled by ``apply``."""
        self._store = store
        self._pin = pin
        self._config = Config(architecture="amd64", os="linux")
        self._layers: list[tuple[Layer, str]] = []
        """Layers in the manifest's order, each with its status line."""
        self._headers: dict[Digest, GGUF] = {}

    # ----------------------------------------------------------------------- where it begins

    def base(self, text: str, remote_host: str) -> ModelName:
        """The model a ``from`` names. Raises ``LhamaError`` for one of Ollama's cloud."""
        name, source = split_source(text)
        if source == "cloud" or remote_host:
            raise Forbidden("ollama cloud is disabled: remote model is unavailable")
        return ModelName.parse(name)

    def start_from(self, name: ModelName) -> None:
        """Take the layers of a model that is there. Raises ``LhamaError``."""
        manifest = self._store.manifest(name)
        if manifest is None:
            raise ModelNotFound(f"model '{name.short}' not found")
        name = self._store.resolve(name)
        if manifest.config:
            self._inherit(configblob.decode(self._store.blobs.read(manifest.config.digest)))
        for layer in manifest.layers:
            size = self._present(layer.digest)
            copied = Layer(layer.media_type, layer.digest, size, name.short, layer.name)
            self._add(copied, new=False)
            if layer.media_type in (manifests.MODEL, manifests.PROJECTOR, manifests.ADAPTER):
                self._headers[layer.digest] = self._header(layer.digest)

    def _inherit(self, base: Config) -> None:
        config = self._config
        config.renderer, config.parser, config.requires = base.renderer, base.parser, base.requires
        config.model_format, config.capabilities = base.model_format, base.capabilities

    def check_kind(self, files: Mapping[str, str]) -> None:
        """Raise ``BadRequest`` for files that no model can be made of."""
        if any(path.endswith(".safetensors") for path in files):
            raise BadRequest(
                "safetensors models cannot be converted yet: make a GGUF file with llama.cpp's "
                "convert_hf_to_gguf.py and create from that"
            )
        if not any(path.endswith(".gguf") or self._is_gguf(files[path]) for path in files):
            raise BadRequest("unknown type")

    def add_file(self, text: str) -> None:
        """Add an uploaded GGUF file by its digest, in the role its metadata name."""
        digest = self._uploaded(text)
        header = self._header(digest)
        if header.get_int("split.count") > 1:
            raise BadRequest(
                "split GGUF files are not supported yet: join them with "
                "llama.cpp's llama-gguf-split --merge"
            )
        self._headers[digest] = header
        size = self._store.blobs.size(digest)
        # No ``from``: Ollama's own layer comes from rewriting the file and has none either.
        self._add(Layer(_role(header), digest, size), new=False)

    def complete_files(self) -> None:
        """Check that the files make one model, and find its template among the known ones."""
        models = [layer for layer, _ in self._layers if layer.media_type == manifests.MODEL]
        if len(models) != 1:
            raise BadRequest(f"one model file is needed, {len(models)} were given")
        detected = autodetect.detect(
            self._headers[models[0].digest].get_str("tokenizer.chat_template")
        )
        if detected is not None:
            self._add_text(manifests.TEMPLATE, detected.template.encode())
            self._layers[-1] = self._layers[-1][0], f"using autodetected template {detected.name}"
            if detected.parameters:
                self._add_text(manifests.PARAMS, blobtexts.parameters(detected.parameters))

    def check_adapters(self, adapters: Mapping[str, str] | None) -> Iterable[str]:
        """The adapters' paths. Raises ``BadRequest`` for more than one, and for other formats."""
        if adapters is None:
            return ()
        self.check_kind(adapters)
        if len(adapters) > 1:
            raise BadRequest("only one adapter is currently supported")
        return adapters

    def add_adapter(self, text: str) -> None:
        digest = self._uploaded(text)
        header = self._header(digest)
        if header.get_str("general.type") != "adapter":
            raise BadRequest("the adapter is no adapter: its GGUF holds a model")
        self._add(Layer(manifests.ADAPTER, digest, self._store.blobs.size(digest)), new=False)

    # ------------------------------------------------------------------- what is put on top

    def apply(self, request: CreateRequest) -> None:
        """Everything else of the request. Raises ``BadRequest`` and other ``LhamaError``s."""
        config = self._config
        config.renderer = request.renderer or config.renderer
        config.parser = request.parser or config.parser
        config.requires = request.requires or config.requires
        if request.info is not None:
            overrides.apply(request.info, config)
        self._check_quantization(request.quantize or request.quantization)
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
        self.statuses = [status for _, status in self._layers]

    def _check_quantization(self, kind: str) -> None:
        wanted = kind.upper()
        if not wanted:
            return
        if wanted not in _QUANTIZED_TYPES:
            raise LhamaError(
                f"unsupported quantization type {wanted} - "
                "supported types are F32, F16, Q4_K_S, Q4_K_M, Q8_0"
            )
        for header in self._models():
            stored = _FLOAT_TYPES.get(header.get_int("general.file_type", -1))
            if stored is None:
                raise LhamaError("quantization is only supported for F16, BF16 and F32 models")
            if stored != wanted:
                raise BadRequest(
                    "quantizing is not possible yet: quantize the file with llama.cpp's "
                    "llama-quantize and create from the result"
                )

    def _describe(self, parameters: dict[str, Any]) -> None:
        """Fill the config from the weights; some architectures bring a renderer and a stop."""
        config = self._config
        for header in self._models():
            family = header.architecture or "unknown"
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

    def _models(self) -> list[GGUF]:
        return [
            self._headers[layer.digest]
            for layer, _ in self._layers
            if layer.media_type == manifests.MODEL and layer.digest in self._headers
        ]

    def _set_parameters(self, given: dict[str, Any]) -> None:
        """Merge with the inherited ones, key by key: the request wins, lists are replaced whole."""
        for layer, _ in self._layers:
            if layer.media_type == manifests.PARAMS:
                try:
                    inherited = msgspec.json.decode(
                        self._store.blobs.read(layer.digest), type=dict[str, Any] | None
                    )
                except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                    raise StoreError(f"blob {layer.digest} is corrupt: {error}") from None
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
        manifest = Manifest(config, tuple(layer for layer, _ in self._layers))
        return self._store.write_manifest(name, manifest)

    # --------------------------------------------------------------------------------- layers

    def _add(self, layer: Layer, *, new: bool) -> None:
        status = "creating new layer" if new else "using existing layer"
        self._layers.append((layer, f"{status} {layer.digest}"))

    def _add_text(self, media_type: str, data: bytes) -> None:
        digest, new = self._write(data)
        self._add(Layer(media_type, digest, len(data)), new=new)

    def _replace(self, media_type: str, data: bytes) -> None:
        self._layers = [(la, st) for la, st in self._layers if la.media_type != media_type]
        self._add_text(media_type, data)

    def _write(self, data: bytes) -> tuple[Digest, bool]:
        self._pin(Digest.of(data))
        return self._store.blobs.write(data)

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

    def _uploaded(self, text: str) -> Digest:
        try:
            digest = Digest.parse(text)
        except BadRequest as error:
            raise LhamaError(error.message) from None  # 500 at this place, as Ollama has it
        self._present(digest)
        if not self._is_gguf(text):
            raise BadRequest("supplied file was not in GGUF format")
        return digest

    def _is_gguf(self, text: str) -> bool:
        try:
            with self._store.blobs.path(Digest.parse(text)).open("rb") as file:
                return file.read(4) == gguf.MAGIC
        except (BadRequest, OSError):
            return False

    def _header(self, digest: Digest) -> GGUF:
        path = self._store.blobs.path(digest)
        try:
            return self._store.header(path)
        except GGUFError as error:
            raise BadRequest(f"the GGUF file {digest} is damaged: {error}") from None
        except OSError as error:
            raise StoreError(f"blob {digest} cannot be read: {error.strerror}") from error


def _role(header: GGUF) -> str:
    """The media type of a GGUF file by its metadata."""
    kind = header.get_str("general.type")
    if kind == "adapter":
        return manifests.ADAPTER
    blocks = header.get_int(header.key("block_count"))
    vision_only = not blocks and header.get_int(header.key("vision.block_count")) > 0
    clip = header.architecture == "clip" and not blocks
    encoders = any(header.get_bool(header.key(f"has_{e}_encoder")) for e in ("vision", "audio"))
    if kind in ("projector", "mmproj") or vision_only or (clip and encoders):
        return manifests.PROJECTOR
    return manifests.MODEL
