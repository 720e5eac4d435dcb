"""Where a create makes files: temporary ones in the store, filled by a worker process."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import Final, TypeVar

from lhama.daemon.errors import BadRequest, LhamaError
from lhama.daemon.protocol.replies import Progress
from lhama.daemon.store import files
from lhama.daemon.store.store import Store
from lhama.daemon.worker import AdapterConversion, Conversion, Quantization, ToolFailed, Worker
from lhama.plugins import gguf
from lhama.plugins.gguf import GGUF
from lhama.plugins.tools import COPY

T = TypeVar("T")

_NO_DIGEST: Final = "0" * 19
_LINE_BYTES: Final = 1 << 30
"""A copy tells of itself once for so many bytes: Ollama's does not, and small models take no time."""


class Workbench:
    """Makes GGUF files. Whatever happens, nothing it made is left but what ``Assembly`` took."""

    def __init__(self, store: Store, worker: Worker) -> None:
        self._store = store
        self._worker = worker

    @contextmanager
    def file(self) -> Iterator[Path]:
        """An empty temporary file, gone in the end unless it was given another name."""
        path = files.temporary(self._store.blobs.folder)
        with self._guarded("writing a model"):
            path.touch(mode=0o644)
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)

    @contextmanager
    def folder(self, content: Mapping[str, Path]) -> Iterator[Path]:
        """A temporary folder with links to files, by their relative paths in it.

        Raises ``BadRequest`` for a path that leads out of it.
        """
        for name in content:
            if not files.is_relative(name) or "\0" in name:
                raise BadRequest(f"file path must be relative: {name}")
        path = files.temporary(self._store.blobs.folder)
        try:
            with self._guarded("laying out a model's files"):
                path.mkdir()
                for name, blob in content.items():
                    link = path / name
                    link.parent.mkdir(parents=True, exist_ok=True)
                    link.symlink_to(blob)
            yield path
        finally:
            files.remove(path)

    @contextmanager
    def _guarded(self, doing: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise files.failure(error, doing, self._store.root) from error

    # ------------------------------------------------------------------------------ quantising

    async def offers(self, source: Path, kind: str) -> tuple[str, str]:
        """The quantiser that writes ``source`` as ``kind``, or "" and the reason why none does."""
        return await asyncio.to_thread(self._worker.quantizer, source, kind)

    async def quantize(
        self, tool: str, source: Path, target: Path, kind: str, status: str, size: int
    ) -> AsyncGenerator[Progress, None]:
        """Write ``source`` as ``kind`` to ``target``; ``size`` is its bytes. Raises ``LhamaError``."""
        step = _LINE_BYTES if kind == COPY else 0
        told = 0
        job = Quantization(str(source), str(target), kind)
        try:
            async with aclosing(self._worker.run(tool, job)) as shares:
                async for share in shares:
                    completed = int(share * size)
                    if completed >= told + step:
                        told = completed
                        yield Progress(status, _NO_DIGEST, size, completed)
        except ToolFailed as error:
            what = f"llama-quantize failed: {error.ending}"
            if kind == COPY:
                what = (
                    "failed to validate GGUF with llama-quantize without compatibility patches: "
                    + what
                )
            raise self._failure(error, "quantizing a model", what) from error

    async def name_projector(self, header: GGUF, target: Path) -> None:
        """Write a vision projector again with the type that it leaves out: llava's."""
        with self._guarded("writing a projector"):
            await whole(gguf.add_key, header, target, "clip.projector_type", "mlp")

    # ------------------------------------------------------------------------------ converting

    async def convert(self, folder: Path, target: Path, base: Path | None = None) -> None:
        """Make a GGUF file of a folder: of an adapter, where ``base`` is given, else of a model."""
        tool, reason = await asyncio.to_thread(self._worker.converter, folder)
        if not tool:
            raise LhamaError(reason)
        job = (
            Conversion(str(folder), str(target))
            if base is None
            else AdapterConversion(str(folder), str(base), str(target))
        )
        try:
            async with aclosing(self._worker.run(tool, job)) as shares:
                async for _ in shares:
                    pass
        except ToolFailed as error:
            raise self._failure(error, "converting a model", error.message) from error

    def _failure(self, error: ToolFailed, doing: str, what: str) -> LhamaError:
        if error.errno:
            return files.failure(
                OSError(error.errno, os.strerror(error.errno)), doing, self._store.root
            )
        return LhamaError(what)


async def whole(call: Callable[..., T], *arguments: object) -> T:
    """Run ``call`` in a thread to its end, also if this is cancelled: what it makes is known then,
    and can be removed."""
    task = asyncio.ensure_future(asyncio.to_thread(call, *arguments))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise
