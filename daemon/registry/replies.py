"""What a registry's reply means: its status, its body within limits, where it sends us."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import aiohttp
from aiohttp import hdrs
from yarl import URL

from lhama.daemon.errors import RegistryError
from lhama.daemon.registry.failures import Passing

MAX_ERROR = 64 * 1024
"""Bytes of an error's text that are passed on."""
_PASSING = frozenset({408, 425, 429})
"""Client errors that pass by themselves, as all server errors may."""


class NotThere(RegistryError):
    """404, in Go's words for a missing file."""

    def __init__(self) -> None:
        super().__init__("file does not exist")


class Refused(RegistryError):
    """Another error status that is not ``Passing``."""


def target(response: aiohttp.ClientResponse, location: str) -> URL:
    """Where a ``Location`` leads, to the letter: signed URLs must not be rewritten."""
    plain = location.isascii() and location.isprintable() and " " not in location
    try:
        url = response.url.join(URL(location, encoded=plain))
        usable = url.scheme in ("http", "https") and url.raw_host and url.port
    except ValueError:
        usable = False
    if not usable or url.raw_user is not None:
        raise RegistryError(f"the registry redirects to a URL that cannot be: {location[:200]!r}")
    return url


async def read_body(response: aiohttp.ClientResponse, most: int) -> bytes:
    """The body of at most ``most`` bytes, counted after unpacking. Raises ``RegistryError``."""
    coding = response.headers.get(hdrs.CONTENT_ENCODING, "identity").lower()
    if coding not in ("identity", "", "gzip"):
        raise RegistryError(f"the registry packed its reply with {coding}")
    unpacker = zlib.decompressobj(wbits=31) if coding == "gzip" else None
    body = bytearray()
    async for chunk in response.content.iter_any():
        try:
            body += unpacker.decompress(chunk, most + 1 - len(body)) if unpacker else chunk
        except zlib.error as error:
            raise RegistryError(f"the registry's reply cannot be unpacked: {error}") from None
        if len(body) > most or (unpacker and unpacker.unconsumed_tail):
            raise RegistryError(f"the registry's reply is larger than {most} bytes")
    return bytes(body)


async def check(response: aiohttp.ClientResponse, hint: str = "") -> None:
    """Raise what an error status means."""
    if response.status == 404:
        raise NotThere
    if response.status >= 400:
        body = bytearray()
        try:
            async for chunk in response.content.iter_any():
                body += chunk
                if len(body) >= MAX_ERROR:
                    break
        except (aiohttp.ClientError, OSError):
            pass  # the status says enough
        text = body[:MAX_ERROR].decode("utf-8", "replace")
        message = f"{response.status}: {text}{hint}"
        if response.status >= 500 or response.status in _PASSING:
            raise Passing(message, retry_after(response.headers))
        raise Refused(message)


def retry_after(headers: Mapping[str, str]) -> float:
    """Seconds that ``Retry-After`` asks for, as a number or a date; 0 without one that can be read."""
    text = headers.get(hdrs.RETRY_AFTER, "").strip()
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        date = parsedate_to_datetime(text)
        return max(0.0, (date - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):  # not a date; one without a zone
        return 0.0
