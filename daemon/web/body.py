"""Request bodies, read within limits of size and time that aiohttp does not set."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from typing import TypeVar

import msgspec
from aiohttp import hdrs, web

from lhama.daemon.errors import BadRequest, LhamaError, Malformed
from lhama.daemon.protocol import gojson

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

T = TypeVar("T", bound=msgspec.Struct)

MAX_JSON = 128 * 1024 * 1024
"""Bytes of a JSON body. Images travel in it, so it is large; Ollama has no limit at all."""

MAX_UNPACKED = 20 * 1024 * 1024
"""Bytes of a JSON body that was sent packed, as in Ollama."""

STALL = 60.0
"""Seconds without a byte after which a body is given up."""


class BodyTooLarge(LhamaError):
    status = 413


class BodyStalled(LhamaError):
    status = 408


async def read_json(
    request: web.Request, into: type[T], *, empty: str = "missing request body"
) -> T:
    """The body as a request struct, whatever its content type. Raises ``LhamaError``s.

    ``empty``: what an empty body is told.
    """
    body = await read(request)
    if request.headers.get(hdrs.CONTENT_ENCODING, "").lower() == "zstd":
        body = await asyncio.to_thread(_unpacked, body)
    return gojson.decode(body, into, empty=empty)


async def read(request: web.Request) -> bytes:
    """The whole body, packed as it may be. Raises ``LhamaError``s where it is too large or stops."""
    length = request.content_length
    if length is not None and length > MAX_JSON:
        raise too_large(MAX_JSON)
    parts: list[bytes] = []
    size = 0
    async for part in chunks(request):
        size += len(part)
        if size > MAX_JSON:
            raise too_large(MAX_JSON)
        parts.append(part)
    return b"".join(parts)


def _unpacked(body: bytes) -> bytes:
    """A zstd body, as Codex sends it; a few bytes can unpack to gigabytes, so not all of it."""
    unpacker = zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: 23})
    try:
        unpacked = unpacker.decompress(body, max_length=MAX_UNPACKED + 1)
    except zstd.ZstdError:
        raise Malformed("failed to decompress zstd body") from None
    if len(unpacked) > MAX_UNPACKED:
        raise too_large(MAX_UNPACKED)
    if not unpacker.eof:
        raise Malformed("failed to decompress zstd body")
    return unpacked


async def chunks(request: web.Request) -> AsyncIterator[bytes]:
    """The body piece by piece; ends when it ends, fails when it stops coming."""
    while True:
        try:
            async with asyncio.timeout(STALL):
                part = await request.content.readany()
        except TimeoutError:
            raise BodyStalled(f"the request body stopped for {STALL:.0f} seconds") from None
        except (web.RequestPayloadError, ConnectionError) as error:
            raise BadRequest(f"the request body could not be read: {error}") from None
        if not part:
            return
        yield part


def too_large(limit: int) -> BodyTooLarge:
    return BodyTooLarge(f"the request body is larger than {limit} bytes, the most accepted here")
