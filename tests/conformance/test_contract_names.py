"""Model names: what each route says of one that is missing, impossible, elsewhere or unknown (§0–1)."""

from __future__ import annotations

from typing import Any

import pytest
from lhama_testing_http import Create, Reply, Server

GENERATE, CHAT = "POST /api/generate", "POST /api/chat"
EMBED, EMBEDDINGS = "POST /api/embed", "POST /api/embeddings"
SHOW, COPY, DELETE = "POST /api/show", "POST /api/copy", "DELETE /api/delete"

EMPTY = {
    GENERATE: (404, "model '{}' not found"),
    CHAT: (400, "model is required"),
    EMBED: (404, "model '{}' not found"),
    EMBEDDINGS: (400, "model is required"),
    SHOW: (400, "model is required"),
    DELETE: (400, "model is required"),
}
INVALID = {
    **dict.fromkeys((GENERATE, CHAT, EMBED, EMBEDDINGS, SHOW), "invalid model name"),
    DELETE: 'name "{}" is invalid',
}
MISSING = {
    GENERATE: "model '{}' not found",
    CHAT: "model '{}' not found",
    EMBED: 'model "{}" not found, try pulling it first',
    EMBEDDINGS: 'model "{}" not found, try pulling it first',
    DELETE: "model '{}' not found",
}
CLOUD = {
    **dict.fromkeys((GENERATE, CHAT, EMBED, EMBEDDINGS), "remote model is unavailable"),
    SHOW: "remote model details are unavailable",
}


async def _error(server: Server, route: str, body: dict[str, Any]) -> tuple[int, str]:
    reply: Reply = await server.ask(route, body)
    return reply.status, reply.json()["error"]


@pytest.mark.parametrize("route", EMPTY)
async def test_no_name(server: Server, route: str) -> None:
    status, error = EMPTY[route]
    for name in ("", "  "):
        assert await _error(server, route, {"model": name}) == (status, error.format(name))


@pytest.mark.parametrize("route", INVALID)
@pytest.mark.parametrize(
    "name", ["bad name!", "../../etc/passwd", "a:", ":b", "/a", "a//b", ".hidden", "a:b/c:d:e", "ü"]
)
async def test_a_name_that_can_be_none(server: Server, route: str, name: str) -> None:
    assert await _error(server, route, {"model": name}) == (400, INVALID[route].format(name))


@pytest.mark.parametrize("route", MISSING)
@pytest.mark.parametrize("name", ["nope", "nope:7b", "me/nope", "host:5000/me/nope:x", " nope "])
async def test_an_unknown_name_comes_back_as_it_was_spelled(
    server: Server, route: str, name: str
) -> None:
    assert await _error(server, route, {"model": name}) == (404, MISSING[route].format(name))


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("nope", "nope:latest"),
        ("me/nope:7b", "me/nope:7b"),
        ("library/nope", "nope:latest"),
        ("Registry.Ollama.AI/library/nope", "nope:latest"),
        ("host:5000/library/nope", "host:5000/library/nope:latest"),
        ("nope:7b:local", "nope:7b"),
    ],
)
async def test_show_names_what_it_looked_for(server: Server, name: str, shown: str) -> None:
    assert await _error(server, SHOW, {"model": name}) == (404, f"model '{shown}' not found")


@pytest.mark.parametrize("route", CLOUD)
async def test_cloud_models_are_elsewhere(server: Server, route: str) -> None:
    for name in ("gpt-oss:120b-cloud", "gpt-oss:120b:cloud", "x:CLOUD", " x:cloud"):
        expected = f"ollama cloud is disabled: {CLOUD[route]}"
        assert await _error(server, route, {"model": name}) == (403, expected)
    # A name that can be none is none in the cloud either.
    assert await _error(server, route, {"model": "bad name!:cloud"}) == (400, "invalid model name")


@pytest.mark.parametrize("route", [*CLOUD, DELETE])
async def test_two_sources_at_once(server: Server, route: str) -> None:
    for name in ("foo:cloud:local", "foo:local:cloud", "foo:7b-cloud:local"):
        expected = f'use either :local or :cloud, not both: "{name}"'
        assert await _error(server, route, {"model": name}) == (400, expected)


async def test_a_cloud_like_name_is_a_name(server: Server, create: Create) -> None:
    await create("my-cloud-model")
    for name in ("my-cloud-model", "my-cloud-model:local", "MY-CLOUD-MODEL:latest"):
        assert (await server.ask(SHOW, {"model": name})).status == 200
        assert (await server.ask(GENERATE, {"model": name})).status == 200


async def test_copy(server: Server, create: Create) -> None:
    await create("ref")
    for body, status, error in [
        ({"source": "bad name!", "destination": "x"}, 400, 'source "bad name!" is invalid'),
        ({"source": "ref", "destination": ""}, 400, 'destination "" is invalid'),
        ({"source": "nope", "destination": "x"}, 404, 'model "nope" not found'),
        # Its names are names and nothing else: no suffix is looked for in them.
        ({"source": "ref:local", "destination": "x"}, 404, 'model "ref:local" not found'),
        ({"source": "ref:cloud", "destination": "x"}, 404, 'model "ref:cloud" not found'),
    ]:
        assert await _error(server, COPY, body) == (status, error)
    for body in (
        {"source": "ref", "destination": "ref"},
        {"source": "REF", "destination": "Other:Tag"},
    ):
        reply = await server.ask(COPY, body)
        assert (reply.status, reply.body, reply.header("content-type")) == (200, b"", None)
    assert await _listed(server) == {"ref:latest", "Other:Tag"}


async def test_names_take_the_spelling_that_is_in_use(server: Server, create: Create) -> None:
    """Part by part, whichever model has it; what is asked for is found in any case."""
    await create("Me/Ref:Big")
    await server.ask(COPY, {"source": "me/REF:big", "destination": "ME/other:BIG"})
    assert await _listed(server) == {"Me/Ref:Big", "Me/other:Big"}
    error = await _error(server, SHOW, {"model": "ME/unknown:BIG"})
    assert error == (404, "model 'Me/unknown:Big' not found")
    # The older of the embedding routes looks for the very name.
    error = await _error(server, EMBEDDINGS, {"model": "me/ref:big", "prompt": "x"})
    assert error == (404, 'model "me/ref:big" not found, try pulling it first')


async def test_model_wins_over_name(server: Server, create: Create) -> None:
    await create("ref")
    assert (await server.ask(SHOW, {"name": "ref"})).status == 200
    assert (await server.ask(SHOW, {"model": "ref", "name": "nope"})).status == 200
    error = await _error(server, DELETE, {"model": "nope", "name": "ref"})
    assert error == (404, "model 'nope' not found")
    assert (await server.ask(DELETE, {"name": "ref"})).status == 200
    assert await _listed(server) == set()


async def test_delete_takes_the_name_a_registry_has(server: Server, create: Create) -> None:
    for name in ("x:20b", "x:20b-cloud"):
        await create("y")
        await server.ask(COPY, {"source": "y", "destination": name})
    assert (await server.ask(DELETE, {"model": "x:20b:cloud"})).status == 200
    assert await _listed(server) == {"x:20b", "y:latest"}
    error = await _error(server, DELETE, {"model": "x:20b:cloud"})
    assert error == (404, "model 'x:20b:cloud' not found")


async def _listed(server: Server) -> set[str]:
    return {model["name"] for model in (await server.ask("GET /api/tags")).json()["models"]}
