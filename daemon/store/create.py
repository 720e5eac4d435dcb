"""Making a model: from uploaded GGUF files, or from a model that is there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import TypeAlias

from lhama.daemon.errors import BadRequest, InvalidDigest
from lhama.daemon.protocol.replies import Progress
from lhama.daemon.protocol.types import CreateRequest
from lhama.daemon.store.assembly import Assembly
from lhama.daemon.store.names import ModelName
from lhama.daemon.store.store import Store

Puller: TypeAlias = Callable[[ModelName], AsyncGenerator[Progress, None]]
"""Brings a model here from its registry."""


def check(request: CreateRequest) -> ModelName:
    """The new model's name. Raises ``BadRequest`` for what is refused before anything is done.

    Ollama answers these errors with another content type than those of ``create``.
    """
    files = request.files or {}
    for path, digest in (*files.items(), *(request.draft_files or {}).items()):
        if not _is_relative(path):
            raise BadRequest("file path must be relative")
        if not digest:
            raise InvalidDigest("invalid digest format")
    if request.draft_quantize and not request.draft_files:
        raise BadRequest("--draft-quantize requires a DRAFT model")
    if not all((request.adapters or {}).values()):
        raise InvalidDigest("invalid digest format")
    return ModelName.parse(request.model or request.name)


async def create(
    store: Store, request: CreateRequest, pull: Puller
) -> AsyncGenerator[Progress, None]:
    """Make a model step by step; it is there when the last line, ``success``, is.

    What it is made from is pulled first if it is not here; the lines of that come first.
    Nothing is listed before, whatever happens. Raises ``LhamaError``s with the status Ollama
    gives them: bad input, a missing blob, a full disk.
    """
    name = check(request)
    store.require_writable()
    with store.pinned(()) as pin:
        model = Assembly(store, pin)
        if request.from_:
            base = model.base(request.from_, request.remote_host)
            if await asyncio.to_thread(store.manifest, base) is None:
                async with aclosing(pull(base)) as lines:
                    async for line in lines:
                        yield line
            await asyncio.to_thread(model.start_from, base)
        elif request.files is not None:
            model.check_kind(request.files)
            for path in sorted(request.files):
                yield Progress("parsing GGUF")
                await asyncio.to_thread(model.add_file, request.files[path])
            await asyncio.to_thread(model.complete_files)
            # Ollama rewrites the file here and checks its copy; ours is checked and stays.
            yield Progress("verifying conversion")
        else:
            raise BadRequest("neither 'from' or 'files' was specified")
        if request.draft_files:
            raise BadRequest("draft models are not supported yet: leave DRAFT out")
        for path in sorted(model.check_adapters(request.adapters)):
            yield Progress("parsing GGUF")
            await asyncio.to_thread(model.add_adapter, request.adapters[path])  # type: ignore[index]
        await asyncio.to_thread(model.apply, request)
        for status in model.statuses:
            yield Progress(status)
        yield Progress("writing manifest")
        replaced = await asyncio.to_thread(model.publish, name)
    await asyncio.to_thread(store.remove_unused, replaced)
    yield Progress("success")


def _is_relative(path: str) -> bool:
    """Whether a file's path stays below its root: no absolute path, no ``.`` or ``..`` in it."""
    return path == "." or all(part not in ("", ".", "..") for part in path.split("/"))
