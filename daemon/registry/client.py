"""The client of registries: what the web's handlers and ``create`` call."""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

from lhama.daemon.config import Settings
from lhama.daemon.protocol.replies import Progress
from lhama.daemon.registry.downloads import Downloads
from lhama.daemon.registry.manner import DEFAULT_MANNER, Manner
from lhama.daemon.registry.pull import Pull
from lhama.daemon.registry.push import Push
from lhama.daemon.registry.reach import Lookup, look_up
from lhama.daemon.registry.remote import Remote
from lhama.daemon.store import ModelName, Store


class RegistryClient:
    """Pulls and pushes models of one store. One of it serves all requests, on the event loop."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        *,
        manner: Manner = DEFAULT_MANNER,
        lookup: Lookup = look_up,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """``lookup`` and ``tls`` stand in for the system's resolver and its trusted authorities."""
        self.store = store
        self.manner = manner
        self.downloads = Downloads()
        self._settings = settings
        self._lookup = lookup
        self._tls = tls
        self._remotes: dict[tuple[ModelName, bool], tuple[Remote, int]] = {}

    def pull(self, name: ModelName, *, insecure: bool = False) -> AsyncGenerator[Progress, None]:
        """Bring a model here, or up to date; it is there when the last line, ``success``, is.

        Raises ``RegistryError`` and ``StoreError``. Closing the generator stops the pull; what has
        arrived is kept, and the next pull goes on from there.
        """
        return Pull(self, name, insecure).run()

    def push(self, text: str, *, insecure: bool = False) -> AsyncGenerator[Progress, None]:
        """Send a model, by its name as the caller wrote it, to the registry in that name."""
        return Push(self, text, insecure).run()

    async def close(self) -> None:
        """End all downloads; those who wait for them fail."""
        await self.downloads.close()

    @asynccontextmanager
    async def remote(self, name: ModelName, insecure: bool) -> AsyncIterator[Remote]:
        """A model's registry; all who ask for it at the same time share connections and token."""
        key = name, insecure
        remote, users = self._remotes.get(key) or (self._connect(name, insecure), 0)
        self._remotes[key] = remote, users + 1
        try:
            yield remote
        finally:
            remote, users = self._remotes.pop(key)
            if users > 1:
                self._remotes[key] = remote, users - 1
            else:
                await remote.close()

    def _connect(self, name: ModelName, insecure: bool) -> Remote:
        return Remote(self._settings, name, insecure=insecure, lookup=self._lookup, tls=self._tls)
