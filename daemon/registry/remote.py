"""One repository of one registry, as one operation sees it: requests, tokens, redirects."""

from __future__ import annotations

import asyncio
import platform
import ssl
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from importlib.metadata import version

import aiohttp
from aiohttp import hdrs
from yarl import URL

from lhama.daemon.config import Settings
from lhama.daemon.errors import RegistryError
from lhama.daemon.registry import auth
from lhama.daemon.registry.failures import failure
from lhama.daemon.registry.identity import CannotSign, Identity
from lhama.daemon.registry.proxies import proxy_for
from lhama.daemon.registry.reach import Lookup, Reach, look_up
from lhama.daemon.registry.replies import check, read_body, target
from lhama.daemon.registry.sending import Content, Sending
from lhama.daemon.store import ModelName

MAX_REDIRECTS = 10
CONNECT_SECONDS = 30.0
ANSWER_SECONDS = 120.0
"""Longest silence of a registry before and within an answer."""
_MAX_TOKEN = 64 * 1024
_LONGEST_HEADER = 64 * 1024
"""Signed addresses of blobs are some kilobytes long."""
_REDIRECTS = frozenset({301, 302, 303, 307, 308})


class Remote:
    """Sends requests to a repository and follows where it leads. Made on the event loop.

    Everything raises ``RegistryError`` in Ollama's words.
    """

    def __init__(
        self,
        settings: Settings,
        name: ModelName,
        *,
        insecure: bool = False,
        lookup: Lookup = look_up,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """``insecure`` means HTTP without TLS, as Ollama has it. The name's own scheme does not
        count there either: without ``insecure`` even ``http://…`` is asked over TLS."""
        scheme = "http" if insecure else "https"
        base = f"{scheme}://{name.host}/v2/{name.namespace}/{name.model}"
        try:
            self.base = URL(base, encoded=True)
            assert self.base.port  # reading it is what finds a bad one
        except ValueError as error:
            raise RegistryError(f"{name.host} is no registry's host: {error}") from None
        self._settings = settings
        self._reach = Reach(lookup)
        self._token = ""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=0, resolver=self._reach, use_dns_cache=False, ssl=tls or True
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,  # a small reply may be a bomb, and blobs are taken as they are
            headers={hdrs.USER_AGENT: user_agent(settings)},
            skip_auto_headers=(hdrs.CONTENT_TYPE, hdrs.ACCEPT),
            max_line_size=_LONGEST_HEADER,
            max_field_size=_LONGEST_HEADER,
        )

    async def close(self) -> None:
        await self._session.close()

    def url(self, path: str) -> URL:
        """A URL of the repository: ``manifests/latest``, ``blobs/sha256:…``."""
        return URL(f"{self.base}/{path}", encoded=True)

    def is_registry(self, url: URL) -> bool:
        """Whether a URL is the registry's own: only there our tokens are sent."""
        return auth.same_registry(url, self.base)

    # ---------------------------------------------------------------------------------- asking

    @asynccontextmanager
    async def request(
        self,
        method: str,
        url: URL,
        *,
        headers: Mapping[str, str] | None = None,
        content: Content = None,
        silence: float = ANSWER_SECONDS,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """One exchange; a 401 is answered with a token, once. Statuses from 400 on are raised.

        Redirects are followed for what can be sent again as it is. ``silence`` is the longest
        wait for the next bytes, and for the next to be taken.
        """
        for last in (False, True):
            response = await self._follow(method, url, headers or {}, content, silence)
            async with response:
                if response.status != 401 or not self.is_registry(response.url):
                    await check(response)
                    yield response
                    return
                challenge = auth.Challenge.read(response.headers)
            if last or not challenge.realm:
                raise RegistryError(f"unauthorized: access denied{self._hint()}")
            await self._authorize(challenge)

    async def read(
        self, method: str, url: URL, most: int, *, headers: Mapping[str, str] | None = None
    ) -> bytes:
        """A small body whole, unpacked if the registry packed it; ``most`` bytes after that."""
        async with self.request(method, url, headers=headers) as response:
            try:
                return await read_body(response, most)
            except (aiohttp.ClientError, OSError) as error:
                raise await failure(error, method, url, self._reach.peer(url)) from error

    async def _follow(
        self, method: str, url: URL, headers: Mapping[str, str], content: Content, silence: float
    ) -> aiohttp.ClientResponse:
        asked = url
        for _ in range(MAX_REDIRECTS + 1):
            response = await self._send(method, url, headers, content, silence)
            location = response.headers.get(hdrs.LOCATION)
            if response.status not in _REDIRECTS or not location:
                return response
            if method not in (hdrs.METH_GET, hdrs.METH_HEAD) and (
                response.status not in (307, 308) or callable(content)
            ):
                return response
            response.close()
            url = target(response, location)
        raise RegistryError(
            f'{method.capitalize()} "{asked}": stopped after {MAX_REDIRECTS} redirects'
        )

    async def _send(
        self,
        method: str,
        url: URL,
        headers: Mapping[str, str],
        content: Content,
        silence: float,
        authorization: str = "",
    ) -> aiohttp.ClientResponse:
        proxy = proxy_for(url, self._settings)
        sent = {hdrs.ACCEPT_ENCODING: "identity", **headers}
        if authorization or self.is_registry(url):
            bearer = self._bearer()
            authorization = authorization or (f"Bearer {bearer}" if bearer else "")
            if authorization:
                sent[hdrs.AUTHORIZATION] = authorization
        try:
            if proxy is not None:
                await self._reach.trust(proxy)
            await self._reach.admit(url, proxied=proxy is not None)
            sending = Sending(content, CONNECT_SECONDS + silence, silence)
            return await sending.answered(
                self._session.request(
                    method,
                    url,
                    headers=sent,
                    data=sending.body,
                    allow_redirects=False,
                    proxy=proxy,
                    timeout=aiohttp.ClientTimeout(sock_connect=CONNECT_SECONDS, sock_read=silence),
                )
            )
        except (aiohttp.ClientError, OSError, RegistryError) as error:
            peer = self._reach.peer(url)
            self._reach.forget(url)  # a host that moved is found again
            raise await failure(error, method, url, peer) from error

    # --------------------------------------------------------------------------------- tokens

    def _bearer(self) -> str:
        given = self._settings.hf_token if auth.is_hugging_face(self.base) else ""
        return self._token or given

    async def _authorize(self, challenge: auth.Challenge) -> None:
        url, hint = challenge.url(self.base), self._hint()
        identity = Identity(self._settings.identity)
        try:
            signature = await asyncio.to_thread(identity.sign, auth.to_be_signed(url))
        except CannotSign as error:
            # Many registries give strangers a token, too: enough for what is public.
            signature, hint = "", f" ({error.message})"
        # Redirects are not followed: the signature is for this URL and nobody else.
        response = await self._send(
            hdrs.METH_GET, url, {}, None, ANSWER_SECONDS, authorization=signature
        )
        async with response:
            if 300 <= response.status < 400:
                raise RegistryError(f"the registry redirects from its realm: {response.status}")
            await check(response, hint)
            self._token = auth.read_token(await read_body(response, _MAX_TOKEN))

    def _hint(self) -> str:
        if auth.is_hugging_face(self.base) and not self._settings.hf_token:
            return " (for a private or gated model, start the server with HF_TOKEN set)"
        return ""


def user_agent(settings: Settings) -> str:
    """As Ollama's, whose version registries look at, with our own name at its end."""
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    system = f"{machine.lower()} {sys.platform}"
    return f"ollama/{settings.report_version} ({system}) lhama/{version('lhama')}"
