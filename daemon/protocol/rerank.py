"""Reranking: what is asked, how a classifier's outputs become scores, and the answer.

Not Ollama's; the shape is Jina's and Cohere's, which llama-server, vLLM and their clients share.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from lhama.daemon.errors import BadRequest
from lhama.daemon.protocol import goencode, vectors

NO_LIST = "documents must be a list of strings"

_DIGITS = 7
"""What is left of a score's float32 after a sigmoid."""


class RankedDocument(msgspec.Struct):
    text: str


class RankResult(msgspec.Struct, omit_defaults=True):
    index: int
    relevance_score: msgspec.Raw
    document: RankedDocument | None = None


class RerankReply(msgspec.Struct, omit_defaults=True, kw_only=True):
    """The answer of ``/api/rerank``."""

    model: str
    results: list[RankResult]
    total_duration: int = 0
    load_duration: int = 0
    prompt_eval_count: int = 0


@dataclass(frozen=True, slots=True)
class Ranking:
    """What to rank, checked."""

    query: str
    documents: list[str]
    top_n: int | None = None
    """How many of the best to tell; ``None``: all."""
    return_documents: bool = False
    raw_scores: bool = False
    """The classifier's output as it is, where it would be made a share of 1."""

    @classmethod
    def read(
        cls,
        query: str,
        documents: Any,
        top_n: int | None = None,
        return_documents: bool | None = None,
        raw_scores: bool = False,
    ) -> Ranking:
        """A document is a string, or an object with a ``text``. Raises ``BadRequest``."""
        texts = _texts(documents)
        if texts and not query:
            raise BadRequest("query is required")
        if top_n is not None and top_n < 1:
            raise BadRequest("top_n must be at least 1")
        return cls(query, texts, top_n, bool(return_documents), raw_scores)

    def results(self, outputs: Sequence[Sequence[float]]) -> list[RankResult]:
        """The documents by their outputs, the best first; of equals, the earlier. Raises
        ``BadRequest`` for outputs that are no numbers."""
        scores = [self._score(output) for output in outputs]
        order = sorted(range(len(scores)), key=lambda index: (-scores[index], index))
        return [
            RankResult(
                index,
                goencode.raw_float(float(f"{scores[index]:.{_DIGITS}g}")),
                RankedDocument(self.documents[index]) if self.return_documents else None,
            )
            for index in order[: self.top_n]
        ]

    def _score(self, output: Sequence[float]) -> float:
        """One output is a logit; of several, which are shares already, the first says yes."""
        vectors.check_finite(output)
        score = output[0]
        if len(output) > 1 or self.raw_scores:
            return score
        return (1 + math.tanh(score / 2)) / 2


def _texts(documents: Any) -> list[str]:
    if not isinstance(documents, list | None):
        raise BadRequest(NO_LIST)
    texts: list[str] = []
    for document in documents or []:
        text = document.get("text") if isinstance(document, dict) else document
        if not isinstance(text, str):
            raise BadRequest(NO_LIST)
        texts.append(text)
    return texts
