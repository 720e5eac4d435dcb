"""A stored model: its manifest and what its blobs say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from itertools import takewhile
from pathlib import Path
from typing import Any

from lhama.daemon.errors import StoreError
from lhama.daemon.prompt.capabilities import of_go, of_parser, of_template
from lhama.daemon.prompt.renderers import variants
from lhama.daemon.prompt.select import Renderer, select
from lhama.daemon.store import manifests
from lhama.daemon.store.configblob import Config
from lhama.daemon.store.manifests import Manifest
from lhama.daemon.store.names import ModelName
from lhama.daemon.wire.messages import Message
from lhama.plugins.backend import ModelFiles
from lhama.plugins.gguf import GGUF, GGUFError

GPT_OSS = frozenset({"gptoss", "gpt-oss"})
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
    drafts: tuple[Path, ...] = ()
    """Carried along: no backend drafts with them."""
    go_template: str = ""
    """The template layer's text, empty without one."""
    system: str = ""
    parameters: dict[str, Any] = field(default_factory=dict)
    """As written: unknown names and wrong types included."""
    messages: tuple[Message, ...] = ()
    licenses: tuple[str, ...] = ()
    go_setting: bool | None = None
    """``OLLAMA_GO_TEMPLATE``: forces Go template or Jinja."""
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

    @property
    def uses_harmony(self) -> bool:
        """gpt-oss with a template in its own format: it answers in that too."""
        marks = ("<|start|>", "<|end|>")
        return self.config.model_family in GPT_OSS and all(m in self.go_template for m in marks)

    @property
    def renderer(self) -> str:
        """Name of the built-in renderer; empty where a template renders."""
        names = (self.name.short, self.name.full)
        return variants.resolved(self.config.renderer, names, self.config.model_type)

    @property
    def parser(self) -> str:
        """Name of the built-in parser; empty where the template says how to parse."""
        return self.config.parser or ("harmony" if self.uses_harmony else "")

    @cached_property
    def template(self) -> str:
        """The Go template that renders; empty where the GGUF's Jinja template does, or none. With
        a built-in renderer or parser the Go template goes before Jinja."""
        if self.go_template and (self.config.renderer or self.parser):
            return self.go_template
        chosen = select(self.go_template, self.chat_template, self.go_setting)
        return self.go_template if chosen is Renderer.GO else ""

    @cached_property
    def capabilities(self) -> list[str]:
        """``completion`` or ``embedding``, and what the templates and projectors add; Ollama's
        order. Without readable weights, what the rest says."""
        found = list(self.config.capabilities or ())
        by_template = self._of_template()
        in_order = [c for c in ("tools", "insert", "thinking") if c in by_template]
        if self.chat_template and not self.template and not self.config.renderer:
            found += in_order
        try:
            found += self._of_weights()
        except StoreError:
            pass
        found += in_order
        found += of_parser(self.config.parser)
        if self.config.model_family in GPT_OSS:
            found.append("thinking")
        return list(dict.fromkeys(found))

    def _of_template(self) -> set[str]:
        """What the template adds that renders, or would where a built-in renderer steps aside."""
        if self.config.renderer or (self.parser and self.go_template):
            return set() if self.go_setting is False else of_go(self.go_template)
        return of_template(self.go_template, self.chat_template, self.go_setting)

    @cached_property
    def listed_capabilities(self) -> list[str]:
        """What Ollama's listing says, which is less than it shows of one model: it reads the
        header as far as the vocabulary, and no Jinja template."""
        found: list[str] = []
        try:
            found += self._of_listed_weights()
        except StoreError:
            pass
        found += self.config.capabilities or ()
        if self.go_template:
            able = of_go(self.go_template) | set(of_parser(self.config.parser))
            if self.config.model_family in GPT_OSS:
                able.add("thinking")
            found += [c for c in ("tools", "insert", "thinking") if c in able]
        if self.projectors:
            found.append("vision")
        return list(dict.fromkeys(found))

    def _of_listed_weights(self) -> list[str]:
        if self.config.remote_host or not self.is_gguf:
            return []
        header = self.header()
        read = list(takewhile(lambda key: not key.startswith("tokenizer."), header.metadata))
        senses = {header.key(f"{sense}.block_count"): sense for sense in ("vision", "audio")}
        pools = header.key("pooling_type") in read
        return [*(senses[k] for k in read if k in senses), "embedding" if pools else "completion"]

    def _of_weights(self) -> list[str]:
        if self.config.remote_host or not self.is_gguf:
            return []
        header = self.header()
        pools = header.key("pooling_type") in header.metadata
        found = ["embedding" if pools else "completion"]
        found += [
            sense
            for sense in ("vision", "audio")
            if header.key(f"{sense}.block_count") in header.metadata
        ]
        for projector in self.projector_headers():
            found.append("vision")
            if projector.get_bool(projector.key("has_audio_encoder")):
                found.append("audio")
        return found
