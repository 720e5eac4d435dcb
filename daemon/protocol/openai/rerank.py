"""The answer of ``/v1/rerank``."""

from __future__ import annotations

import msgspec

from lhama.daemon.protocol import goencode
from lhama.daemon.protocol.openai.embeddings import TextUsage
from lhama.daemon.protocol.rerank import RankResult


class RankingList(msgspec.Struct):
    object: str
    results: list[RankResult]
    model: str
    usage: TextUsage


def ranking_list(model: str, results: list[RankResult], usage: TextUsage) -> bytes:
    """Documents by their relevance, as llama-server and Jina write them."""
    return goencode.encode(RankingList("list", results, model, usage)) + b"\n"
