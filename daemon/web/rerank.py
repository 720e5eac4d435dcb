"""``/api/rerank``: documents by their relevance to a query."""

from __future__ import annotations

import time
from dataclasses import dataclass

from aiohttp import web

from lhama.daemon.durations import Duration
from lhama.daemon.protocol import options
from lhama.daemon.protocol.rerank import Ranking, RankResult, RerankReply
from lhama.daemon.protocol.types import RerankRequest
from lhama.daemon.web import lookup
from lhama.daemon.web.body import read_json
from lhama.daemon.web.replies import json_reply
from lhama.daemon.web.service import SERVICE, Service
from lhama.daemon.wire.messages import Rank


@dataclass(frozen=True, slots=True)
class Ranked:
    """Documents in order, and what they took."""

    results: list[RankResult]
    tokens: int = 0
    truncated: int = 0
    load_ns: int = 0


async def rerank(request: web.Request) -> web.Response:
    began = time.monotonic_ns()
    body = await read_json(request, RerankRequest)
    ranking = Ranking.read(
        body.query, body.documents, body.top_n, body.return_documents, body.raw_scores
    )
    found = await rank(
        request.app[SERVICE],
        body.model,
        ranking,
        truncate=body.truncate is not False,
        model_options=body.options,
        keep_alive=body.keep_alive,
    )
    if not ranking.documents:
        return json_reply(RerankReply(model=body.model, results=[]))
    return json_reply(
        RerankReply(
            model=body.model,
            results=found.results,
            total_duration=max(time.monotonic_ns() - began, 1),
            load_duration=max(found.load_ns, 1),
            prompt_eval_count=found.tokens,
        ),
        truncated=found.truncated,
    )


async def rank(
    service: Service,
    name: str,
    ranking: Ranking,
    *,
    truncate: bool = True,
    model_options: dict[str, object] | None = None,
    keep_alive: Duration | None = None,
) -> Ranked:
    """The documents in order; without documents, the model is loaded and nothing more."""
    model = await lookup.for_rerank(service, name)
    chosen = options.merge(
        model.parameters, model_options or {}, context_length=service.settings.context_length
    ).floored(vision=False)
    load = lookup.load_request(model, chosen)
    async with await service.scheduler.lease(model, load, keep_alive) as lease:
        if not ranking.documents:
            return Ranked([])
        found = await lease.embed(Rank(0, ranking.query, ranking.documents, truncate))
        results = ranking.results(found.vectors)
        return Ranked(results, found.tokens, found.truncated_tokens, lease.load_ns)
