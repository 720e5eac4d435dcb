"""What the tests of attacks share: raw bytes to a server, and the corpus."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from lhama_testing_http import Server

CORPUS = Path(__file__).parent / "corpus"


def corpus(kind: str) -> list[Path]:
    """Inputs that were worth keeping; what a fuzzer finds is added as a file."""
    found = sorted((CORPUS / kind).iterdir())
    assert found, f"no corpus of {kind}"
    return found


def each(kind: str) -> pytest.MarkDecorator:
    """Parametrize by the files of a kind, by name."""
    return pytest.mark.parametrize("path", corpus(kind), ids=lambda path: path.name)


async def raw(server: Server, *pieces: bytes, until: bytes = b"", silence: float = 1) -> bytes:
    """Everything the server says to these bytes until it hangs up, says no more, or has said
    ``until``."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.settings.port)
    said = b""
    try:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
        while data := await asyncio.wait_for(reader.read(65536), silence):
            said += data
            if until and until in said:
                break
    except (TimeoutError, ConnectionError):
        pass
    finally:
        writer.close()
    return said
