"""Reranking through the real scheduler and runner, on the reference backend."""

from __future__ import annotations

import json
from typing import Any

import pytest
from lhama_testing_http import Create, Reply, Server

from lhama.backends.reference.model import RANK, Behaviour

DOCUMENTS = ["the sky is blue", "a cat", "grass is green", "the sea"]
ROUTES = ("/api/rerank", "/v1/rerank")


@pytest.fixture
async def ranker(create: Create) -> str:
    await create("ranker", Behaviour(pooling=RANK))
    return "ranker"


async def ask(server: Server, route: str, **body: Any) -> Reply:
    return await server.send("POST", route, {"model": "ranker", "query": "colours?", **body})


@pytest.mark.parametrize("route", ROUTES)
async def test_documents_come_back_by_relevance(server: Server, ranker: str, route: str) -> None:
    reply = (await ask(server, route, documents=DOCUMENTS)).json()
    results = reply["results"]
    assert sorted(r["index"] for r in results) == [0, 1, 2, 3]
    scores = [r["relevance_score"] for r in results]
    assert scores == sorted(scores, reverse=True)
    assert all(0.5 < score < 0.75 for score in scores), "a sigmoid of 0 to 1"
    assert len(set(scores)) == 4
    assert all(list(r) == ["index", "relevance_score"] for r in results)
    alone = (await ask(server, route, documents=[DOCUMENTS[results[0]["index"]]])).json()
    assert alone["results"] == [{**results[0], "index": 0}]


async def test_both_forms_of_the_answer(server: Server, ranker: str) -> None:
    native = await ask(server, "/api/rerank", documents=DOCUMENTS)
    body = native.json()
    assert list(body) == [
        *("model", "results", "total_duration", "load_duration", "prompt_eval_count")
    ]
    assert native.header("content-type") == "application/json; charset=utf-8"
    v1 = await ask(server, "/v1/rerank", documents=DOCUMENTS)
    other = v1.json()
    assert list(other) == ["object", "results", "model", "usage"]
    assert (other["object"], other["model"]) == ("list", "ranker")
    assert v1.body.endswith(b"}\n")
    assert other["results"] == body["results"]
    tokens = sum(len("colours?") + len(document) for document in DOCUMENTS)
    assert body["prompt_eval_count"] == tokens
    assert other["usage"] == {"prompt_tokens": tokens, "total_tokens": tokens}


@pytest.mark.parametrize("route", ROUTES)
async def test_what_may_be_asked_for(server: Server, ranker: str, route: str) -> None:
    whole = (await ask(server, route, documents=DOCUMENTS)).json()["results"]
    best = (await ask(server, route, documents=DOCUMENTS, top_n=2)).json()["results"]
    assert best == whole[:2]
    assert (await ask(server, route, documents=DOCUMENTS, top_n=9)).json()["results"] == whole
    objects = [{"text": text, "title": "x"} for text in DOCUMENTS]
    told = (await ask(server, route, documents=objects, return_documents=True)).json()["results"]
    for result in told:
        assert result.pop("document") == {"text": DOCUMENTS[result["index"]]}
    assert told == whole
    raw = (await ask(server, route, documents=DOCUMENTS, raw_scores=True)).json()["results"]
    assert [r["index"] for r in raw] == [r["index"] for r in whole]
    assert raw[0]["relevance_score"] > whole[0]["relevance_score"]


async def test_without_documents_the_model_is_loaded(server: Server, ranker: str) -> None:
    reply = await server.send("POST", "/api/rerank", {"model": "ranker"})
    assert reply.body == b'{"model":"ranker","results":[]}'
    loaded = (await server.send("GET", "/api/ps")).json()["models"]
    assert [model["name"] for model in loaded] == ["ranker:latest"]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"documents": "a"}, "documents must be a list of strings"),
        ({"documents": ["a", 5]}, "documents must be a list of strings"),
        ({"documents": [{"title": "a"}]}, "documents must be a list of strings"),
        ({"documents": ["a"], "query": ""}, "query is required"),
        ({"documents": ["a"], "top_n": 0}, "top_n must be at least 1"),
        ({"documents": ["a"], "query": 5}, "cannot unmarshal number into Go struct field"),
        ({"documents": ["a"], "model": "nope"}, 'model "nope" not found'),
        ({"documents": ["a"], "model": "chatty"}, '"chatty" does not support rerank'),
        ({"documents": ["a"], "model": "embedder"}, '"embedder" does not support rerank'),
        ({"documents": ["a"], "model": " "}, "model is required"),
    ],
)
async def test_bad_requests(
    server: Server, ranker: str, create: Create, body: dict[str, Any], words: str
) -> None:
    await create("chatty")
    await create("embedder", Behaviour(pooling=1))
    for route in ROUTES:
        reply = await ask(server, route, **body)
        assert reply.status == (404 if "not found" in words else 400)
        error = reply.json()["error"]
        assert words in (error["message"] if route == "/v1/rerank" else error)


async def test_nothing_to_rank_is_no_request_of_the_others(server: Server, ranker: str) -> None:
    reply = await ask(server, "/v1/rerank", documents=[])
    assert reply.status == 400
    assert json.loads(reply.body)["error"]["type"] == "invalid_request_error"


async def test_documents_too_long_are_cut_or_refused(server: Server, ranker: str) -> None:
    long = ["word " * 1000, "short"]
    small = {"options": {"num_ctx": 64}}
    reply = (await ask(server, "/api/rerank", documents=long, **small)).json()
    assert len(reply["results"]) == 2
    assert reply["prompt_eval_count"] == 64 + len("colours?short")
    refused = await ask(server, "/api/rerank", documents=long, truncate=False, **small)
    assert (refused.status, refused.json()) == (
        400,
        {"error": "the input length exceeds the context length"},
    )
    query = await ask(server, "/api/rerank", documents=["a"], query="q" * 100, **small)
    assert query.status == 400
    assert "the query is too long" in query.json()["error"]


@pytest.mark.parametrize(("path", "status"), [("/api/embed", 400), ("/api/embeddings", 500)])
async def test_a_reranker_gives_no_vectors(
    server: Server, ranker: str, path: str, status: int
) -> None:
    body = {"model": "ranker", "input": "x", "prompt": "x"}
    reply = await server.send("POST", path, body)
    assert reply.status == status
    assert reply.json() == {"error": "this model ranks documents: it gives no embeddings"}
