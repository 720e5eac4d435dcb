"""Multipart forms, within the limits of JSON bodies."""

from __future__ import annotations

import asyncio

from aiohttp import BodyPartReader, hdrs, web
from aiohttp.http_exceptions import HttpProcessingError

from lhama.daemon.errors import Malformed
from lhama.daemon.web.body import MAX_JSON, STALL, BodyStalled, too_large

MOST_PARTS = 1000
"""As in Go: names and headers of parts are kept, too, and the limit of the body does not count them."""

_BAD = "failed to parse multipart form: "


async def read_form(request: web.Request) -> dict[str, bytes]:
    """The fields and files of a form by their names; of several with one name, the first."""
    if request.content_type != "multipart/form-data":
        raise Malformed(f"{_BAD}request Content-Type isn't multipart/form-data")
    if "boundary=" not in request.headers[hdrs.CONTENT_TYPE]:
        raise Malformed(f"{_BAD}no multipart boundary param in Content-Type")
    fields: dict[str, bytes] = {}
    left = MAX_JSON
    try:
        reader = await request.multipart()
        for _ in range(MOST_PARTS + 1):
            async with asyncio.timeout(STALL):
                part = await reader.next()
            if part is None:
                return fields
            if not isinstance(part, BodyPartReader):
                continue
            value = await _read(part, left)
            left -= len(value)
            fields.setdefault(part.name or "", value)
        raise ValueError("multipart: message too large")
    except TimeoutError:
        raise BodyStalled(f"the request body stopped for {STALL:.0f} seconds") from None
    except (ValueError, AssertionError, HttpProcessingError, ConnectionError) as error:
        raise Malformed(f"{_BAD}{error}") from None


async def _read(part: BodyPartReader, limit: int) -> bytes:
    value = bytearray()
    while True:
        async with asyncio.timeout(STALL):
            chunk = await part.read_chunk(1 << 20)
        if not chunk:
            return bytes(value)
        value += chunk
        if len(value) > limit:
            raise too_large(MAX_JSON)
