"""Making a model: from uploaded files, or from a model that is there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import TypeAlias

from lhama.daemon.errors import BadRequest, InvalidDigest, LhamaError
from lhama.daemon.protocol.replies import Progress
from lhama.daemon.protocol.source import split_source
from lhama.daemon.protocol.types import CreateRequest
from lhama.daemon.store import files as paths
from lhama.daemon.store import manifests, parts, quantization, remotes
from lhama.daemon.store.assembly import Assembly
from lhama.daemon.store.digests import Digest
from lhama.daemon.store.names import ModelName
from lhama.daemon.store.parts import Part
from lhama.daemon.store.store import Store
from lhama.daemon.store.workbench import Workbench, whole
from lhama.daemon.worker import Worker
from lhama.plugins.gguf import GGUF
from lhama.plugins.tools import COPY

Puller: TypeAlias = Callable[[ModelName], AsyncGenerator[Progress, None]]
"""Brings a model here from its registry."""

Lines: TypeAlias = AsyncGenerator[Progress, None]


def check(request: CreateRequest) -> ModelName:
    """The new model's name. Raises ``BadRequest`` for what is refused before anything is done.

    Ollama answers these errors with another content type than those of ``create``.
    """
    files = request.files or {}
    for path, digest in (*files.items(), *(request.draft_files or {}).items()):
        if not paths.is_relative(path):
            raise BadRequest("file path must be relative")
        if not digest:
            raise InvalidDigest("invalid digest format")
    if request.draft_quantize and not request.draft_files:
        raise BadRequest("--draft-quantize requires a DRAFT model")
    if not all((request.adapters or {}).values()):
        raise InvalidDigest("invalid digest format")
    return ModelName.parse(request.model or request.name)


async def create(store: Store, request: CreateRequest, pull: Puller, worker: Worker) -> Lines:
    """Make a model step by step; it is there when the last line, ``success``, is.

    What it is made from is pulled first if it is not here; the lines of that come first.
    Nothing is listed before, whatever happens, and what was written for a model that did not
    come about is removed. Raises ``LhamaError``s with the status Ollama gives them: bad input, a
    missing blob, a full disk.
    """
    name = check(request)
    store.require_writable()
    made: list[Digest] = []
    try:
        with store.pinned(()) as pin:
            model = Assembly(store, pin)
            made = model.made
            async with aclosing(_Making(model, request, Workbench(store, worker)).run(pull)) as run:
                async for line in run:
                    yield line
            yield Progress("writing manifest")
            replaced = await whole(model.publish, name)
    finally:
        await whole(store.discard, made)
    await whole(store.remove_unused, replaced)
    yield Progress("success")


class _Making:
    """One create up to its manifest."""

    def __init__(self, model: Assembly, request: CreateRequest, bench: Workbench) -> None:
        self._model = model
        self._request = request
        self._bench = bench
        self._is_remote = False

    async def run(self, pull: Puller) -> Lines:
        """Gather the layers, write anew what has to be, put the rest on top."""
        request = self._request
        if request.from_:
            async for line in self._start_from(pull):
                yield line
        elif request.files is not None:
            async for line in self._add_model(request.files):
                yield line
        else:
            raise BadRequest("neither 'from' or 'files' was specified")
        if self._is_remote and request.draft_files:
            raise BadRequest("DRAFT cannot be used with remote models")
        if not self._is_remote:
            drafts: list[Part] = []
            async for line in self._read_drafts(drafts):
                yield line
            async for line in self._add_adapters():
                yield line
            self._model.parts += drafts
        self._model.configure(request)
        async for line in self._write_anew():
            yield line
        await whole(self._model.apply, request)
        for part in self._model.parts:
            yield Progress(part.status)

    # ----------------------------------------------------------------------- where it begins

    async def _start_from(self, pull: Puller) -> Lines:
        base, source = split_source(self._request.from_)
        name = ModelName.parse(base)
        host = self._request.remote_host or (remotes.CLOUD if source == "cloud" else "")
        if host:
            self._is_remote = True
            self._model.start_remote(base, remotes.address(host))
            return
        if await asyncio.to_thread(self._model.is_missing, name):
            async with aclosing(pull(name)) as lines:
                async for line in lines:
                    yield line
        await whole(self._model.start_from, name)

    async def _add_model(self, files: dict[str, str]) -> Lines:
        if self._model.kind(files) == "safetensors":
            yield Progress("converting model")
            await self._convert(files, manifests.MODEL)
        else:
            async for line in self._parse(files, self._model.parts):
                yield line
        await whole(self._model.complete_files)

    async def _read_drafts(self, drafts: list[Part]) -> Lines:
        files = self._request.draft_files
        if files is None:
            return
        if self._model.kind(files) == "safetensors":
            raise BadRequest("draft models are taken as GGUF files only: convert it first")
        with _as_bad_request():
            async for line in self._parse(files, drafts, manifests.DRAFT):
                yield line

    async def _add_adapters(self) -> Lines:
        files = self._request.adapters
        if files is None:
            return
        if self._model.kind(files) == "safetensors":
            bases = self._model.of_type(manifests.MODEL)
            if not bases:
                raise BadRequest("no base model was found")
            yield Progress("converting adapter")
            with _as_bad_request():
                base = self._model.path(bases[0].layer.digest)
                await self._convert(files, manifests.ADAPTER, base)
            return
        if len(files) > 1:
            raise BadRequest("only one adapter is currently supported")
        adapters: list[Part] = []
        with _as_bad_request():
            async for line in self._parse(files, adapters):
                yield line
        if adapters[0].layer.media_type != manifests.ADAPTER:
            raise BadRequest("the adapter is no adapter: its GGUF holds a model")
        self._model.parts += adapters

    async def _parse(self, files: dict[str, str], into: list[Part], media_type: str = "") -> Lines:
        read = []
        for name in sorted(files):
            yield Progress("parsing GGUF")
            read.append(await whole(self._model.read_gguf, files[name], name, media_type))
        into += parts.join_shards(read)

    async def _convert(
        self, files: dict[str, str], media_type: str, base: Path | None = None
    ) -> None:
        content = {name: await whole(self._model.uploaded, files[name]) for name in sorted(files)}
        with self._bench.folder(content) as folder, self._bench.file() as target:
            await self._bench.convert(folder, target, base)
            await whole(self._model.add_written, target, media_type)

    # ---------------------------------------------------------------------------- written anew

    async def _write_anew(self) -> Lines:
        """Quantise what is to be quantised; copy what was uploaded, as Ollama does, so that a file
        no engine can read is refused now."""
        request = self._request
        for part in list(self._model.parts):
            header = part.header
            if header is None:
                continue
            match part.layer.media_type:
                case manifests.MODEL:
                    asked = (request.quantize or request.quantization).upper()
                    kind = quantization.wanted(asked, header) or (COPY if part.uploaded else "")
                case manifests.DRAFT:
                    asked = request.draft_quantize.upper()
                    kind = quantization.wanted(asked, header, draft=True)
                    kind = kind or (COPY if part.shards else "")
                case manifests.PROJECTOR if part.uploaded and parts.lacks_projector_type(header):
                    yield Progress("updating GGUF projector metadata")
                    with self._bench.file() as target:
                        await self._bench.name_projector(header, target)
                        await whole(self._model.replace, part, target)
                    continue
                case _:
                    continue
            if kind:
                async for line in self._rewrite(part, header, kind, asked):
                    yield line

    async def _rewrite(self, part: Part, header: GGUF, kind: str, asked: str) -> Lines:
        source = self._model.path(part.layer.digest)
        tool, reason = await self._bench.offers(source, kind)
        if not tool:
            if kind != COPY or part.shards:
                what = "joined" if kind == COPY else f"quantized to {asked}"
                raise LhamaError(f"the model cannot be {what} here: {reason}")
            # Nobody here can copy it: it stays as it came, and its header was checked.
            yield Progress("verifying conversion")
            self._model.keep(part)
            return
        was = quantization.float_type(header)
        status = "validating GGUF model" if kind == COPY else f"quantizing {was} model to {asked}"
        shards = {Path(shard.name).name: self._model.path(shard.digest) for shard in part.shards}
        with self._bench.folder(shards) as folder, self._bench.file() as target:
            first = folder / next(iter(shards)) if shards else source
            lines = self._bench.quantize(tool, first, target, kind, status, part.layer.size)
            async with aclosing(lines):
                async for line in lines:
                    yield line
            yield Progress("verifying conversion")
            await whole(self._model.replace, part, target)


@contextmanager
def _as_bad_request() -> Iterator[None]:
    """Whatever is wrong with an adapter or a draft is the request's fault, to Ollama."""
    try:
        yield
    except LhamaError as error:
        raise BadRequest(error.message) from error
