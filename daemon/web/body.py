"""Request bodies, read within limits of size and time that aiohttp does not set."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TypeVar

import msgspec
from aiohttp import web

from lhama.daemon.errors import BadRequest, LhamaError
from lhama.daemon.protocol import gojson

T = TypeVar("T", bound=msgspec.Struct)

MAX_JSON = 512 * 1024 * 1024
"""Bytes of a JSON body. Images travel in it, so it is large; Ollama has no limit at all."""

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
    limit = MAX_JSON
    length = request.content_length
    if length is not None and length > limit:
        raise too_large(limit)
    parts: list[bytes] = []
    size = 0
    async for part in chunks(request):
        size += len(part)
        if size > limit:
            raise too_large(limit)
        parts.append(part)
    return gojson.decode(b"".join(parts), into, empty=empty)


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
