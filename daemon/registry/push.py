"""Push: the blobs the registry does not have, and then the manifest that names them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING

from aiohttp import hdrs

from lhama.daemon.errors import InvalidName, RegistryError, StoreError
from lhama.daemon.protocol.replies import Progress
from lhama.daemon.registry.pull import TICK
from lhama.daemon.registry.remote import Remote
from lhama.daemon.registry.replies import NotThere
from lhama.daemon.registry.threads import outlast
from lhama.daemon.registry.upload import Upload
from lhama.daemon.store import ModelName, blobs, manifests
from lhama.daemon.store.manifests import Layer, Manifest

if TYPE_CHECKING:
    from lhama.daemon.registry.client import RegistryClient


class Push:
    """One push of one model."""

    def __init__(self, client: RegistryClient, text: str, insecure: bool) -> None:
        self._client = client
        self._store = client.store
        self._text = text
        self._insecure = insecure

    async def run(self) -> AsyncGenerator[Progress, None]:
        """See ``RegistryClient.push``. The lines are Ollama's, contract §6."""
        yield Progress("retrieving manifest")
        try:
            name, manifest = await asyncio.to_thread(self._find)
        except (RegistryError, StoreError):
            yield Progress("couldn't retrieve manifest")
            raise
        tensors = bool(manifest.layers_of(manifests.TENSOR))
        data = manifests.encode(manifest).rstrip(b"\n")
        if tensors:  # whose manifests say more than we read
            data = await asyncio.to_thread(self._store.catalogue.path(name).read_bytes)
        async with self._client.remote(name, self._insecure) as remote:
            with self._store.pinned(manifest.digests):
                before = 0
                for layer in manifest.all_layers:
                    async with aclosing(self._send(remote, layer)) as lines:
                        async for line in lines:
                            yield _of_all(manifest, before + line.completed) if tensors else line
                    before += layer.size
            if not tensors:
                yield Progress("pushing manifest")
            await self._send_manifest(remote, name.tag, data)
        yield Progress("success")

    def _find(self) -> tuple[ModelName, Manifest]:
        try:
            name = self._store.catalogue.resolve(ModelName.parse(self._text))
        except InvalidName:
            raise RegistryError(f"unqualified name: {ModelName.spelled_out(self._text)}") from None
        manifest = self._store.catalogue.read(name)
        if manifest is None:
            raise RegistryError(
                f"open {self._store.catalogue.path(name)}: no such file or directory"
            )
        return name, manifest

    async def _send(self, remote: Remote, layer: Layer) -> AsyncGenerator[Progress, None]:
        if await self._is_there(remote, layer):
            yield _line(layer, layer.size, layer.size)
            return
        try:
            path = self._store.blobs.path(layer.digest)
            upload = Upload(remote, layer, path, self._client.manner)
        except FileNotFoundError:
            raise blobs.missing(layer.digest) from None
        sending = asyncio.create_task(upload.run())
        try:
            while True:
                done, _ = await asyncio.wait({sending}, timeout=TICK)
                yield _line(layer, upload.total, upload.completed)
                if done:
                    sending.result()
                    return
        finally:
            sending.cancel()
            await outlast(sending)

    async def _is_there(self, remote: Remote, layer: Layer) -> bool:
        try:
            async with remote.request(hdrs.METH_HEAD, remote.url(f"blobs/{layer.digest}")):
                return True
        except NotThere:
            return False

    async def _send_manifest(self, remote: Remote, tag: str, data: bytes) -> None:
        async with remote.request(
            hdrs.METH_PUT,
            remote.url(f"manifests/{tag}"),
            headers={hdrs.CONTENT_TYPE: manifests.MEDIA_TYPE},
            content=data,
        ):
            pass


def _line(layer: Layer, total: int, completed: int) -> Progress:
    return Progress(f"pushing {layer.digest.short}", str(layer.digest), total, completed)


def _of_all(manifest: Manifest, completed: int) -> Progress:
    """The line of models with thousands of layers: all in one."""
    return Progress("pushing model", "sha256:model", manifest.size, completed)
