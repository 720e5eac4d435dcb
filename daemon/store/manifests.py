"""Manifests: which blobs make up a model, in which role."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import msgspec

from lhama.daemon.errors import InvalidDigest, StoreError
from lhama.daemon.protocol import goencode
from lhama.daemon.store.digests import Digest

MEDIA_TYPE = "application/vnd.docker.distribution.manifest.v2+json"
CONFIG = "application/vnd.docker.container.image.v1+json"
_IMAGE = "application/vnd.ollama.image."
MODEL = _IMAGE + "model"
PROJECTOR = _IMAGE + "projector"
ADAPTER = _IMAGE + "adapter"
TEMPLATE = _IMAGE + "template"
PROMPT = _IMAGE + "prompt"
"""The template's media type in old manifests."""
SYSTEM = _IMAGE + "system"
PARAMS = _IMAGE + "params"
MESSAGES = _IMAGE + "messages"
LICENSE = _IMAGE + "license"
DRAFT = _IMAGE + "draft"
TENSOR = _IMAGE + "tensor"
"""One tensor of a model in Ollama's MLX format."""

MAX_BYTES = 4 * 1024 * 1024
MAX_LAYERS = 20_000
"""Models of the largest tensor-per-layer kind have some thousands."""


@dataclass(frozen=True, slots=True)
class Layer:
    """One blob and what it is for. ``source`` is the model or file it came from (``from``)."""

    media_type: str
    digest: Digest
    size: int
    source: str = ""
    name: str = ""


@dataclass(frozen=True, slots=True)
class Manifest:
    """A model's blobs. ``digest`` is that of the manifest's own bytes: the model's identity."""

    config: Layer | None
    layers: tuple[Layer, ...]
    digest: str = ""
    """64 hexadecimal digits; empty for one not written yet."""
    modified_ns: int = 0

    @property
    def all_layers(self) -> tuple[Layer, ...]:
        return (*self.layers, self.config) if self.config else self.layers

    @property
    def size(self) -> int:
        """Bytes of all blobs together, one named twice counted twice, as Ollama does."""
        return sum(layer.size for layer in self.all_layers)

    @property
    def digests(self) -> frozenset[Digest]:
        return frozenset(layer.digest for layer in self.all_layers)

    def layers_of(self, *media_types: str) -> list[Layer]:
        return [layer for layer in self.layers if layer.media_type in media_types]


class _Layer(msgspec.Struct, rename="camel", omit_defaults=True):
    media_type: str | None = None
    digest: str | None = None
    size: int | None = None
    from_: str | None = msgspec.field(default=None, name="from")
    name: str | None = None


class _Manifest(msgspec.Struct, rename="camel"):
    schema_version: int | None = None
    media_type: str | None = None
    config: _Layer | None = None
    layers: list[_Layer | None] | None = None


_decoder = msgspec.json.Decoder(_Manifest)


def read(path: Path) -> Manifest:
    """A manifest file, every field checked.

    Raises ``FileNotFoundError``, other ``OSError``s, and ``StoreError`` for a corrupt one.
    """
    with path.open("rb") as file:
        data = file.read(MAX_BYTES + 1)
        modified = os.fstat(file.fileno()).st_mtime_ns
    manifest = decode(data)
    return Manifest(manifest.config, manifest.layers, hashlib.sha256(data).hexdigest(), modified)


def decode(data: bytes) -> Manifest:
    """Raises ``StoreError`` that says what is wrong with the bytes."""
    if len(data) > MAX_BYTES:
        raise StoreError(f"corrupt manifest: larger than {MAX_BYTES} bytes")
    try:
        raw = _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise StoreError(f"corrupt manifest: {error}") from None
    layers = raw.layers or []
    if len(layers) > MAX_LAYERS:
        raise StoreError(f"corrupt manifest: more than {MAX_LAYERS} layers")
    # Without a config blob there is no digest in it: Ollama writes an empty one.
    config = _layer(raw.config) if raw.config and raw.config.digest else None
    if config is None and not layers:
        raise StoreError("corrupt manifest: it names no blobs")
    return Manifest(config, tuple(_layer(layer) for layer in layers))


def _layer(raw: _Layer | None) -> Layer:
    if raw is None:
        raise StoreError("corrupt manifest: a layer is null")
    size = raw.size or 0
    if not 0 <= size < 1 << 63:
        raise StoreError(f"corrupt manifest: a layer of {size} bytes")
    try:
        digest = Digest.parse(raw.digest or "")
    except InvalidDigest:
        raise StoreError("corrupt manifest: a layer has an invalid digest") from None
    return Layer(raw.media_type or "", digest, size, raw.from_ or "", raw.name or "")


def encode(manifest: Manifest) -> bytes:
    """The bytes Ollama would write: they are hashed to the model's digest."""
    config = manifest.config
    raw = {
        "schemaVersion": 2,
        "mediaType": MEDIA_TYPE,
        "config": _raw(config) if config else {"mediaType": "", "digest": "", "size": 0},
        "layers": [_raw(layer) for layer in manifest.layers],
    }
    return goencode.encode(raw) + b"\n"


def _raw(layer: Layer) -> dict[str, str | int]:
    raw: dict[str, str | int] = {
        "mediaType": layer.media_type,
        "digest": str(layer.digest),
        "size": layer.size,
    }
    if layer.source:
        raw["from"] = layer.source
    if layer.name:
        raw["name"] = layer.name
    return raw
