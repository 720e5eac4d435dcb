"""A stored model: its manifest and what its blobs say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from lhama.daemon.errors import StoreError
from lhama.daemon.store import manifests
from lhama.daemon.store.configblob import Config
from lhama.daemon.store.manifests import Manifest
from lhama.daemon.store.names import ModelName
from lhama.daemon.wire.messages import Message
from lhama.plugins.backend import ModelFiles
from lhama.plugins.gguf import GGUF, GGUFError

HeaderReader = Callable[[Path], GGUF]

NO_TEMPLATE = "{{ .Prompt }}"
"""What stands in for a model without a Go template."""


@dataclass(frozen=True)
class StoredModel:
    """One model of the store, as it was when it was read; blobs never change, so it stays true."""

    name: ModelName
    manifest: Manifest
    config: Config
    weights: tuple[Path, ...]
    """The model layers' files, absolute; the first is the model, none in a remote stub."""
    projectors: tuple[Path, ...] = ()
    adapters: tuple[Path, ...] = ()
    go_template: str = ""
    """The template layer's text, empty without one."""
    system: str = ""
    parameters: dict[str, Any] = field(default_factory=dict)
    """As written: unknown names and wrong types included."""
    messages: tuple[Message, ...] = ()
    licenses: tuple[str, ...] = ()
    read_header: HeaderReader = field(repr=False, compare=False, kw_only=True)

    @property
    def digest(self) -> str:
        """64 hexadecimal digits of the manifest: the model's identity in listings."""
        return self.manifest.digest

    @property
    def size(self) -> int:
        return self.manifest.size

    @property
    def modified_ns(self) -> int:
        return self.manifest.modified_ns

    @property
    def parent(self) -> str:
        """The model this one was created from, if it was."""
        models = self.manifest.layers_of(manifests.MODEL)
        return models[-1].source if models else ""

    @property
    def is_gguf(self) -> bool:
        return self.config.model_format in ("", "gguf")

    def files(self) -> ModelFiles:
        """What a backend loads. Raises ``StoreError`` for a model without weights here."""
        if self.config.remote_host:
            raise StoreError(f'"{self.name.short}" runs in Ollama\'s cloud: it has no weights here')
        if not self.is_gguf:
            raise StoreError(
                f'"{self.name.short}" is stored as {self.config.model_format}: '
                "lhama runs GGUF models; pull or create a GGUF of it"
            )
        if not self.weights:
            raise StoreError(f'"{self.name.short}" has no weights: pull or create it again')
        return ModelFiles(
            name=self.name.short,
            weights=str(self.weights[0]),
            adapters=tuple(map(str, self.adapters)),
            projectors=tuple(map(str, self.projectors)),
        )

    def header(self) -> GGUF:
        """The weights' GGUF header without its vocabulary; cached by the store.

        Raises ``StoreError`` that names the damaged or missing blob.
        """
        return self._header(Path(self.files().weights))

    def projector_headers(self) -> list[GGUF]:
        return [self._header(path) for path in self.projectors]

    def _header(self, path: Path) -> GGUF:
        try:
            return self.read_header(path)
        except FileNotFoundError:
            raise StoreError(
                f"blob {path.name} of {self.name.short} is missing from the store: "
                "pull or create the model again"
            ) from None
        except (GGUFError, OSError) as error:
            raise StoreError(
                f"blob {path.name} of {self.name.short} is damaged ({error}): "
                "pull or create the model again"
            ) from error

    @cached_property
    def chat_template(self) -> str:
        """The GGUF's own Jinja template; empty if it has none or cannot be read."""
        try:
            return self.header().get_str("tokenizer.chat_template")
        except StoreError:
            return ""

    @cached_property
    def family(self) -> str:
        return self.config.model_family
