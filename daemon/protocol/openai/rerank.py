"""The answer of ``/v1/rerank``."""

from __future__ import annotations

import msgspec

from lhama.daemon.protocol import goencode
from lhama.daemon.protocol.openai.embeddings import EmbeddingUsage
from lhama.daemon.protocol.rerank import RankResult


class RankingList(msgspec.Struct):
    object: str
    results: list[RankResult]
    model: str
    usage: EmbeddingUsage


def ranking_list(model: str, results: list[RankResult], tokens: int) -> bytes:
    """Documents by their relevance, as llama-server and Jina write them."""
    body = RankingList("list", results, model, EmbeddingUsage(tokens, tokens))
    return goencode.encode(body) + b"\n"
