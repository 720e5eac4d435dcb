"""The answer of ``/v1/embeddings``."""

from __future__ import annotations

import base64
import struct
from collections.abc import Sequence

import msgspec

from lhama.daemon.protocol import goencode


class Embedding(msgspec.Struct):
    object: str
    embedding: msgspec.Raw
    index: int


class TextUsage(msgspec.Struct, omit_defaults=True):
    prompt_tokens: int
    total_tokens: int
    truncated_tokens: int = 0
    """Tokens of the texts that were cut to make them fit. Not OpenAI's; absent where none was."""


class EmbeddingList(msgspec.Struct):
    object: str
    data: list[Embedding]
    model: str
    usage: TextUsage


def embedding_list(
    model: str, vectors: Sequence[Sequence[float]], usage: TextUsage, encoding_format: str
) -> bytes:
    """Vectors as lists of numbers or, smaller and exact, as base64 of little-endian float32."""
    encode = _base64 if encoding_format.lower() == "base64" else goencode.float32_list
    data = [Embedding("embedding", encode(v), index) for index, v in enumerate(vectors)]
    return goencode.encode(EmbeddingList("list", data, model, usage)) + b"\n"


def _base64(vector: Sequence[float]) -> msgspec.Raw:
    packed = struct.pack(f"<{len(vector)}f", *vector)
    return msgspec.Raw(b'"%b"' % base64.b64encode(packed))
