"""Pull: a manifest, the blobs it names that are not here, and then the model appears."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import TYPE_CHECKING

from aiohttp import hdrs

from lhama.daemon.errors import LhamaError, RegistryError
from lhama.daemon.protocol.replies import Progress
from lhama.daemon.registry.download import Download
from lhama.daemon.registry.downloads import Shared
from lhama.daemon.registry.remote import Remote
from lhama.daemon.store import Digest, ModelName, manifests
from lhama.daemon.store.manifests import Layer, Manifest
from lhama.daemon.store.partial import Partial

if TYPE_CHECKING:
    from lhama.daemon.registry.client import RegistryClient

TICK = 0.06
"""Seconds between a blob's lines."""


class Pull:
    """One pull of one model."""

    def __init__(self, client: RegistryClient, name: ModelName, insecure: bool) -> None:
        self._client = client
        self._store = client.store
        self._name = name
        self._insecure = insecure

    async def run(self) -> AsyncGenerator[Progress, None]:
        """See ``RegistryClient.pull``. The lines are Ollama's, contract §6."""
        self._store.require_writable()
        self._name = await asyncio.to_thread(self._store.catalogue.resolve, self._name)
        yield Progress("pulling manifest")
        async with AsyncExitStack() as held:
            remote, manifest, data = await self._open(held)
            held.enter_context(self._store.pinned(manifest.digests))
            fetched: dict[Digest, Shared] = {}
            for layer in manifest.all_layers:
                present = await asyncio.to_thread(self._size, layer)
                if present is not None or layer.digest in fetched:
                    size = layer.size if present is None else present
                    yield _line(layer, size, size)
                    continue
                size = layer.size or await self._ask_size(remote, layer)
                shared = await held.enter_async_context(self._lease(layer, size))
                fetched[layer.digest] = shared
                while not await shared.fetched(TICK):
                    yield _line(layer, size, shared.download.completed)
                yield _line(layer, size, size)
            yield Progress("verifying sha256 digest")
            for shared in fetched.values():
                await shared.verify()
            yield Progress("writing manifest")
            replaced = await asyncio.to_thread(
                self._store.write_manifest, self._name, manifest, data
            )
        orphans = replaced - manifest.digests
        if orphans and self._store.prune:
            yield Progress("removing unused layers")
            await asyncio.to_thread(self._store.remove_unused, orphans)
        yield Progress("success")

    async def _open(self, held: AsyncExitStack) -> tuple[Remote, Manifest, bytes]:
        """The registry, and the manifest as it has it, in its own bytes and read."""
        try:
            remote = await held.enter_async_context(self._client.remote(self._name, self._insecure))
            data = await remote.read(
                hdrs.METH_GET,
                remote.url(f"manifests/{self._name.tag}"),
                manifests.MAX_BYTES,
                headers={hdrs.ACCEPT: manifests.MEDIA_TYPE},
            )
            manifest = manifests.decode(data)
        except LhamaError as error:
            raise RegistryError(f"pull model manifest: {error.message}") from error
        if manifest.layers_of(manifests.TENSOR):
            raise RegistryError(
                "this model requires MLX support, but the MLX runtime is not available"
            )
        return remote, manifest, data

    def _size(self, layer: Layer) -> int | None:
        """How large the blob is that is here; ``None`` if there is none, or it is cut off."""
        try:
            size = self._store.blobs.size(layer.digest)
        except FileNotFoundError:
            return None
        return size if not layer.size or size == layer.size else None

    async def _ask_size(self, remote: Remote, layer: Layer) -> int:
        async with remote.request(hdrs.METH_HEAD, remote.url(f"blobs/{layer.digest}")) as response:
            return int(response.headers.get(hdrs.CONTENT_LENGTH, 0))

    def _lease(self, layer: Layer, size: int) -> AbstractAsyncContextManager[Shared]:
        manner = self._client.manner

        def start() -> Download:
            partial = Partial(
                self._store.blobs, layer.digest, size, smallest_part=manner.smallest_part
            )
            return Download(
                partial, lambda: self._client.remote(self._name, self._insecure), manner
            )

        return self._client.downloads.lease(layer.digest, start)


def _line(layer: Layer, total: int, completed: int) -> Progress:
    return Progress(f"pulling {layer.digest.short}", str(layer.digest), total, completed)
