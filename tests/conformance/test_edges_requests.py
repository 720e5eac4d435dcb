"""Sharp edges of Ollama's contract (§10): what requests are told, and what answers hold."""

from __future__ import annotations

import json
from typing import Any

import pytest
from lhama_testing_http import Create, Reply, Server

from lhama.backends.reference.model import Behaviour
from lhama.daemon.errors import RunnerFailed
from lhama.daemon.scheduler import Lease, Scheduler

GENERATE, CHAT = "POST /api/generate", "POST /api/chat"
ASK = {"prompt": "x", "messages": [{"role": "user", "content": "x"}]}
"""Both routes ignore what is the other's."""
FULL = "registry.ollama.ai/library/ref:latest"


def lines(reply: Reply) -> list[dict[str, Any]]:
    return [json.loads(line) for line in reply.body.splitlines()]


@pytest.fixture
async def ref(create: Create) -> str:
    await create("ref")
    return "ref"


async def test_edge_01_null_and_empty_bodies_differ_by_route(server: Server) -> None:
    for body in (b"null", b"{}"):
        reply = await server.ask(CHAT, body)
        assert (reply.status, reply.json()) == (400, {"error": "model is required"})
        reply = await server.ask(GENERATE, body)
        assert (reply.status, reply.json()) == (404, {"error": "model '' not found"})


@pytest.mark.parametrize("route", [GENERATE, CHAT])
async def test_edge_02_a_plain_model_may_be_told_not_to_think(
    server: Server, ref: str, route: str
) -> None:
    for think in (True, "high", "max"):
        reply = await server.ask(route, {"model": ref, "think": think, **ASK})
        assert (reply.status, reply.json()) == (400, {"error": '"ref" does not support thinking'})
    for think in (False, None):
        options = {"num_predict": 1}
        body = {"model": ref, "think": think, "options": options, "stream": False, **ASK}
        assert (await server.ask(route, body)).status == 200


async def test_edge_03_capabilities_name_the_model_in_two_ways(
    server: Server, create: Create, ref: str
) -> None:
    await create("Vec", Behaviour(pooling=1))
    for route, body, error in (
        (GENERATE, {"model": "REF", "suffix": "y"}, f"{FULL} does not support insert"),
        (CHAT, {"model": "ref", "tools": [{}]}, f"{FULL} does not support tools"),
        (GENERATE, {"model": "vec:latest"}, '"vec:latest" does not support generate'),
        (CHAT, {"model": "vec"}, '"vec" does not support chat'),
        # What cannot complete is said to lack that and nothing else; thinking is looked at first.
        (GENERATE, {"model": "vec", "suffix": "y"}, '"vec" does not support generate'),
        (CHAT, {"model": "vec", "think": True}, '"vec" does not support thinking'),
    ):
        reply = await server.ask(route, {**ASK, **body})
        assert (reply.status, reply.json()) == (400, {"error": error})
        # A model that would be loaded only is told the same.
        reply = await server.ask(route, body)
        assert (reply.status, reply.json()) == (400, {"error": error})


@pytest.mark.parametrize("route", [GENERATE, CHAT])
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("status", [400, 429, 500, 503])
async def test_edge_04_a_runners_status_reaches_the_client(
    server: Server,
    ref: str,
    monkeypatch: pytest.MonkeyPatch,
    route: str,
    stream: bool,
    status: int,
) -> None:
    async def fail(*_: Any) -> None:
        raise RunnerFailed("it <is> so", status=status, kind="some_error")

    monkeypatch.setattr(Lease, "generate", fail)
    reply = await server.ask(route, {"model": ref, "stream": stream, **ASK})
    charset = "" if stream else "; charset=utf-8"
    assert reply.header("content-type") == "application/json" + charset
    inner = f'{{"error":{{"code":{status},"message":"it <is> so","type":"some_error"}}}}'
    assert (reply.status, reply.json()) == (status, {"error": inner})
    assert not reply.body.endswith(b"\n")


@pytest.mark.parametrize("route", [GENERATE, CHAT])
async def test_edge_05_top_logprobs_are_looked_at_before_the_model(
    server: Server, route: str
) -> None:
    for top in (-1, 21):
        reply = await server.ask(route, {"model": "nope", "top_logprobs": top})
        assert reply.status == 400
        assert reply.json() == {"error": "top_logprobs must be between 0 and 20"}
    for top in (0, 20):
        assert (await server.ask(route, {"model": "nope", "top_logprobs": top})).status == 404


@pytest.mark.parametrize("route", [GENERATE, CHAT])
async def test_edge_06_logprobs_have_the_bytes_of_their_tokens(
    server: Server, ref: str, route: str
) -> None:
    body = {"model": ref, "logprobs": True, "top_logprobs": 3, "stream": False, **ASK}
    reply = await server.ask(route, body | {"options": {"num_predict": 4}})
    found = reply.json()["logprobs"]
    assert len(found) == 4
    for item in found:
        assert list(item) == ["token", "logprob", "bytes", "top_logprobs"]
        assert len(item["top_logprobs"]) == 3
        for token in (item, *item["top_logprobs"]):
            assert bytes(token["bytes"]).decode() == token["token"]
        probabilities = [token["logprob"] for token in item["top_logprobs"]]
        assert probabilities == sorted(probabilities, reverse=True)


@pytest.mark.parametrize("route", [GENERATE, CHAT])
async def test_edge_08_to_unload_loads_nothing(
    server: Server, ref: str, monkeypatch: pytest.MonkeyPatch, route: str
) -> None:
    def refuse(*_: Any) -> Any:
        raise AssertionError("the scheduler was asked for the model")

    monkeypatch.setattr(Scheduler, "lease", refuse)
    for keep_alive in (0, "0", "0s", 0.0):
        reply = await server.ask(route, {"model": ref, "keep_alive": keep_alive})
        assert reply.status == 200
        assert reply.json()["done_reason"] == "unload"
        assert "total_duration" not in reply.json()
    reply = await server.ask(route, {"model": "nope", "keep_alive": 0})
    assert reply.status == 404


async def test_edge_09_models_that_make_images_are_refused(server: Server, create: Create) -> None:
    await create("painter", info={"capabilities": ["image"]})
    reply = await server.ask(GENERATE, {"model": "painter", "prompt": "x"})
    assert reply.status == 400
    assert reply.json() == {"error": "image generation models are not currently supported"}


async def test_edge_23_listings_and_wrong_methods(server: Server, create: Create) -> None:
    assert (await server.ask("GET /api/show")).status == 405
    assert (await server.ask("GET /api/tags")).body == b'{"models":[]}'
    await create("ref")
    (model,) = (await server.ask("GET /api/tags")).json()["models"]
    assert list(model) == [
        *("name", "model", "modified_at", "size", "digest", "details", "capabilities"),
    ]
    assert len(model["digest"]) == 64


async def test_edge_24_a_create_in_one_piece_names_no_charset(server: Server, ref: str) -> None:
    reply = await server.ask("POST /api/create", {"model": "b", "from": ref, "stream": False})
    assert (reply.status, reply.header("content-type")) == (200, "application/json")
    assert reply.body == b'{"status":"success"}'
    reply = await server.ask("POST /api/create", {"model": "b", "from": ref})
    assert reply.header("content-type") == "application/x-ndjson"


async def test_edge_55_final_replies_have_all_their_figures(server: Server, ref: str) -> None:
    figures = ("total_duration", "load_duration", "prompt_eval_count", "prompt_eval_duration")
    figures += ("eval_count", "eval_duration")
    options = {"num_predict": 1}
    for route in (GENERATE, CHAT):
        for _ in range(2):  # loaded for it, and loaded before
            final = lines(await server.ask(route, {"model": ref, "options": options, **ASK}))[-1]
            assert all(type(final[name]) is int and final[name] > 0 for name in figures)
            assert ("context" in final) == (route == GENERATE)
            order = [key for key in final if key in figures]
            assert order == list(figures)
        body = {"model": ref, "raw": True, "options": options, **ASK}
        assert "context" not in lines(await server.ask(route, body))[-1]


@pytest.mark.parametrize("route", [GENERATE, CHAT])
async def test_edge_56_ten_tokens_have_ten_logprobs(server: Server, ref: str, route: str) -> None:
    body = {"model": ref, "logprobs": True, "options": {"num_predict": 10}, **ASK}
    streamed = lines(await server.ask(route, body))
    assert sum(len(line.get("logprobs", [])) for line in streamed) == 10
    assert "logprobs" not in streamed[-1]
    whole = (await server.ask(route, body | {"stream": False})).json()
    assert len(whole["logprobs"]) == 10
