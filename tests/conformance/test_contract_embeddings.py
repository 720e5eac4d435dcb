"""The embed routes (§1, §10.40, §10.53, §10.54), on a model that hashes: a token is a letter."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import pytest
from lhama_testing_http import Create, Reply, Server

from lhama.backends.reference.model import Behaviour

EMBED, EMBEDDINGS = "POST /api/embed", "POST /api/embeddings"
TOO_LONG = "the input length exceeds the context length"
NOTHING_LEFT = "input after truncation exceeds maximum context length"
CANNOT_BE_CUT = "input exceeds maximum context length and cannot be truncated further"
UNSUPPORTED = "This server does not support embeddings. Start it with `--embeddings`"


@pytest.fixture
async def embedder(create: Create) -> str:
    await create("emb", Behaviour(pooling=1))
    return "emb"


async def embed(server: Server, **members: Any) -> Reply:
    return await server.ask(EMBED, {"model": "emb", **members})


async def said(server: Server, status: int = 400, **members: Any) -> str:
    reply = await embed(server, **members)
    assert reply.status == status
    return str(reply.json()["error"])


# -------------------------------------------------------------------------------------- its shape


async def test_an_answer_is_complete(server: Server, embedder: str) -> None:
    reply = (await embed(server, input=["hello", "bye"])).json()
    assert list(reply) == [
        *("model", "embeddings", "total_duration", "load_duration", "prompt_eval_count")
    ]
    assert reply["model"] == "emb"
    assert reply["prompt_eval_count"] == len("hello" + "bye")
    assert reply["total_duration"] >= reply["load_duration"] > 0
    one = (await embed(server, input="bye")).json()
    assert one["embeddings"] == reply["embeddings"][1:]


@pytest.mark.parametrize("members", [{}, {"input": None}, {"input": ""}, {"input": []}])
async def test_without_input_the_model_is_loaded(
    server: Server, embedder: str, members: dict[str, Any]
) -> None:
    assert (await embed(server, **members)).body == b'{"model":"emb","embeddings":[]}'
    older = await server.ask(EMBEDDINGS, {"model": "emb", "prompt": ""})
    assert older.body == b'{"embedding":[]}'
    loaded = (await server.ask("GET /api/ps")).json()["models"]
    assert [model["name"] for model in loaded] == ["emb:latest"]


@pytest.mark.parametrize("text", [5, True, {"a": 1}, ["a", 5], [["a"]], [None]])
async def test_other_inputs_are_refused_before_a_model_is_looked_for(
    server: Server, text: Any
) -> None:
    for model in ("nope", "emb"):
        reply = await server.ask(EMBED, {"model": model, "input": text})
        assert (reply.status, reply.json()) == (400, {"error": "invalid input type"})


async def test_dimensions_cut_and_scale_again(server: Server, embedder: str) -> None:
    [whole] = (await embed(server, input="hello")).json()["embeddings"]
    [cut] = (await embed(server, input="hello", dimensions=3)).json()["embeddings"]
    length = math.hypot(*whole[:3])
    assert cut == pytest.approx([x / length for x in whole[:3]], abs=1e-6)
    for dimensions in (0, -1, 8, 9):
        reply = await embed(server, input="hello", dimensions=dimensions)
        assert reply.json()["embeddings"] == [whole]


async def test_edge_54_the_older_route_gives_one_vector(server: Server, embedder: str) -> None:
    reply = await server.ask(EMBEDDINGS, {"model": "emb", "prompt": "hello"})
    assert list(reply.json()) == ["embedding"]
    [vector] = (await embed(server, input="hello")).json()["embeddings"]
    assert reply.json()["embedding"] == pytest.approx(vector, abs=1e-6)


# ----------------------------------------------------------------- §10.53: what does not fit


async def test_long_texts_are_cut_with_room_for_a_bos_and_an_eos(
    server: Server, embedder: str
) -> None:
    options = {"num_ctx": 12}
    cut = (await embed(server, input="abcdefghijklmnop", options=options)).json()
    assert cut["prompt_eval_count"] == 10
    whole = (await embed(server, input="abcdefghij", options=options, truncate=True)).json()
    assert cut["embeddings"] == whole["embeddings"]


async def test_a_header_says_what_was_cut(server: Server, embedder: str) -> None:
    """Which Ollama does not."""
    options = {"num_ctx": 12}
    reply = await embed(server, input=["abcdefghijklmnop", "a", "abcdefghijk"], options=options)
    assert reply.header("lhama-truncated-tokens") == "7"
    assert (await embed(server, input="a")).header("lhama-truncated-tokens") is None
    long = "a" * 3000
    v1 = await server.ask("POST /v1/embeddings", {"model": "emb", "input": long})
    assert v1.json()["usage"]["truncated_tokens"] == int(v1.header("lhama-truncated-tokens") or 0)
    assert v1.json()["usage"]["prompt_tokens"] < 3000


async def test_edge_53_or_refused(server: Server, embedder: str) -> None:
    options = {"num_ctx": 12}
    asked = {"options": options, "truncate": False}
    assert await said(server, input="abcdefghijk", **asked) == TOO_LONG
    assert await said(server, input=["a", "abcdefghijk", "b"], **asked) == TOO_LONG
    assert (await embed(server, input="abcdefghij", **asked)).status == 200


@pytest.mark.parametrize("num_ctx", [1, 2])
async def test_edge_53_no_room_for_a_token(server: Server, embedder: str, num_ctx: int) -> None:
    for truncate in (True, False):
        options = {"num_ctx": num_ctx}
        assert await said(server, input="a", options=options, truncate=truncate) == NOTHING_LEFT


async def test_a_context_of_zero_is_the_models_but_its_batch_is_four(
    server: Server, embedder: str
) -> None:
    options = {"num_ctx": 0}
    assert await said(server, input="abcdefgh", options=options) == CANNOT_BE_CUT
    assert (await embed(server, input="abcd", options=options)).status == 200


async def test_one_bad_input_fails_them_all(server: Server, embedder: str) -> None:
    assert await said(server, input=["", "a"]) == CANNOT_BE_CUT
    assert await said(server, input=["", "a"], truncate=False) == "Input content cannot be empty"


async def test_edge_53_a_batch_of_three_counts_three_times(server: Server, embedder: str) -> None:
    one = (await embed(server, input="test")).json()["prompt_eval_count"]
    three = (await embed(server, input=["test"] * 3)).json()["prompt_eval_count"]
    assert three == 3 * one


async def test_the_older_route_cuts_nothing(server: Server, embedder: str) -> None:
    body = {"model": "emb", "prompt": "a" * 13, "options": {"num_ctx": 12}}
    reply = await server.ask(EMBEDDINGS, body)
    assert (reply.status, reply.json()) == (500, {"error": TOO_LONG})
    reply = await server.ask(EMBEDDINGS, body | {"prompt": "a" * 12})
    assert reply.status == 200


# ---------------------------------------------------------------------- §10.40: num_batch


@pytest.mark.parametrize(
    ("options", "fits"), [({}, 2048), ({"num_ctx": 100}, 98), ({"num_batch": 50}, 48)]
)
async def test_edge_40_a_text_may_have_as_many_tokens_as_the_batch(
    server: Server, create: Create, options: dict[str, int], fits: int
) -> None:
    """2,048 by default, capped by the context. What is longer is cut to the batch, less the BOS and
    EOS there might be."""
    await create("emb", Behaviour(pooling=1), parameters={"num_ctx": 2500})
    reply = (await embed(server, input="a" * 3000, options=options)).json()
    assert reply["prompt_eval_count"] == min(fits, 2046)
    if not options:
        reply = (await embed(server, input="a" * 2048)).json()
        assert reply["prompt_eval_count"] == 2046  # the model was trained on 2,048
    assert (await embed(server, input="a" * fits, options=options)).status == 200


# ----------------------------------------------------------------------------- what may go wrong


async def test_numbers_that_are_none(server: Server, create: Create) -> None:
    await create("emb", Behaviour(pooling=1, fault="nan"))
    assert await said(server, input="a") == "embedding contains NaN or Inf values"
    reply = await server.ask(EMBEDDINGS, {"model": "emb", "prompt": "a"})
    assert reply.json() == {"error": "embedding contains NaN or Inf values"}


async def test_the_runners_error_is_a_400_here_and_a_500_there(
    server: Server, create: Create
) -> None:
    await create("emb", Behaviour(pooling=1, fault="text", fault_step=ord("x")))
    assert "a fault" in await said(server, status=500, input=["a", "x"])
    assert (await embed(server, input=["a", "b"])).status == 200


async def test_a_model_that_chats_gives_none(server: Server, create: Create) -> None:
    """There is no gate: the runner's own words are relayed, behind the rules on lengths."""
    await create("emb")
    assert await said(server, status=501, input=["", "a"]) == UNSUPPORTED
    options = {"num_ctx": 12}
    assert await said(server, input="a" * 11, options=options, truncate=False) == TOO_LONG
    assert await said(server, status=501, input="a" * 11, options=options) == UNSUPPORTED
    assert (await embed(server, input=[])).status == 200
    reply = await server.ask(EMBEDDINGS, {"model": "emb", "prompt": "a"})
    assert (reply.status, reply.json()) == (500, {"error": UNSUPPORTED})


@pytest.mark.parametrize("path", ["generate", "chat"])
async def test_a_model_that_embeds_does_not_chat(server: Server, embedder: str, path: str) -> None:
    body = {"model": "emb", "prompt": "x", "messages": [{"role": "user", "content": "x"}]}
    reply = await server.ask(f"POST /api/{path}", body)
    assert (reply.status, reply.json()) == (400, {"error": f'"emb" does not support {path}'})


async def test_a_client_that_goes_stops_its_texts(server: Server, create: Create) -> None:
    """Step 100 of them would kill the runner."""
    await create("emb", Behaviour(pooling=1, compute_us=10_000, fault="crash", fault_step=100))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.5):
            await embed(server, input=[f"text {n}" for n in range(5000)])
    await asyncio.sleep(1.5)
    assert (await embed(server, input="another")).status == 200
