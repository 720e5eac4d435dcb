"""Options, lengths, formats and log-probabilities, as a client of ``/api/*`` sees them (contract §1
"shared generation facts", §2, §3, §10; oracle notes 7, 10, 11)."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from lhama_testing_http import Reply, Server, create_reference, serving

from lhama.backends.reference.model import Behaviour

pytestmark = pytest.mark.asyncio(loop_scope="module")

ROUTES = ("generate", "chat")


async def ask(server: Server, route: str = "generate", **members: Any) -> Reply:
    """One answer, not streamed; ``options`` with a temperature of 0 where nothing else is said."""
    options = {"temperature": 0, "num_predict": 3} | members.pop("options", {})
    body: dict[str, Any] = {"model": "m", "stream": False, "options": options}
    text = members.pop("prompt", "hello")
    body |= (
        {"prompt": text}
        if route == "generate"
        else {"messages": [{"role": "user", "content": text}]}
    )
    return await server.ask(f"POST /api/{route}", body | members)


def text(reply: Reply) -> str:
    body = reply.json()
    said: str = body["response"] if "response" in body else body["message"]["content"]
    return said


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    """One for all, with a model that stays loaded: each test asks a few short questions."""
    folder = tmp_path_factory.mktemp("generation")
    async with serving(folder / "models") as server:
        await create_reference(server, folder, "m", Behaviour(), context=8192)
        yield server


# --------------------------------------------------------------------------------------- lengths


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("num_predict", [1, 2, 3])
async def test_exact_lengths(server: Server, route: str, num_predict: int) -> None:
    body = (await ask(server, route, options={"num_predict": num_predict})).json()
    assert (body["done_reason"], body["eval_count"]) == ("length", num_predict)
    assert len(body.get("response") or body["message"]["content"]) == num_predict
    if num_predict == 1:
        assert body["eval_duration"] == 1000


@pytest.mark.parametrize("num_predict", [0, -1, -2, 10**9, 1e18])
async def test_no_length_is_ten_contexts(server: Server, num_predict: float) -> None:
    """0 counts as not given; more than ten contexts is ten contexts."""
    options = {"num_ctx": 64, "num_predict": num_predict, "temperature": 1, "seed": 3}
    body = (await ask(server, options=options)).json()
    assert (body["done_reason"], body["eval_count"]) == ("length", 640)


async def test_a_stream_ends_with_an_empty_piece(server: Server) -> None:
    reply = await ask(server, stream=True, options={"num_predict": 1})
    lines = [json.loads(line) for line in reply.body.splitlines()]
    assert [line["done"] for line in lines] == [False, True]
    assert len(lines[0]["response"]) == 1
    assert lines[1]["response"] == ""
    assert "context" in lines[1]


# ------------------------------------------------------------------------------- prompts too long


@pytest.mark.parametrize(
    ("num_ctx", "num_keep", "kept"),
    [(4096, 5, 2051), (4096, 4, 2050), (64, 4, 34), (64, 0, 32), (64, -1, 63), (64, 1000, 63)],
)
async def test_a_prompt_that_is_too_long_is_cut(
    server: Server, num_ctx: int, num_keep: int, kept: int
) -> None:
    options = {"num_ctx": num_ctx, "num_keep": num_keep}
    body = (await ask(server, prompt="x" * 5000, raw=True, options=options)).json()
    assert body["prompt_eval_count"] == kept


async def test_or_refused_where_nothing_may_be_dropped(server: Server) -> None:
    reply = await ask(server, prompt="x" * 5000, raw=True, shift=False, options={"num_ctx": 64})
    assert reply.status == 400
    assert reply.json()["error"].startswith("the prompt is longer than the context length")


async def test_without_truncation_the_real_context_counts(server: Server) -> None:
    """num_ctx 64 runs as 256: llama.cpp rounds it up."""
    fits = await ask(server, prompt="x" * 200, raw=True, truncate=False, options={"num_ctx": 64})
    assert (fits.status, fits.json()["prompt_eval_count"]) == (200, 200)
    reply = await ask(server, prompt="x" * 300, raw=True, truncate=False, options={"num_ctx": 64})
    assert reply.status == 400
    assert json.loads(reply.json()["error"]) == {
        "error": {
            "code": 400,
            "message": "request (300 tokens) exceeds the available context size (256 tokens), "
            "try increasing it",
            "type": "exceed_context_size_error",
            "n_prompt_tokens": 300,
            "n_ctx": 256,
        }
    }


@pytest.mark.parametrize(("shift", "tokens"), [(False, 56), (True, 100)])
async def test_a_context_that_fills_up(server: Server, shift: bool, tokens: int) -> None:
    options = {"num_ctx": 256, "num_predict": 100, "temperature": 1, "seed": 1}
    body = (await ask(server, prompt="x" * 200, raw=True, shift=shift, options=options)).json()
    assert (body["done_reason"], body["eval_count"]) == ("length", tokens)


# -------------------------------------------------------------------------------------- sampling


async def test_unknown_and_old_options_change_nothing(server: Server) -> None:
    plain = text(await ask(server, options={"num_predict": 20}))
    old = {
        "tfs_z": 0.5,
        "mirostat": 2,
        "mirostat_tau": 1.0,
        "mirostat_eta": 0.5,
        "penalize_newline": True,
        "low_vram": True,
        "f16_kv": False,
        "bananas": 3,
    }
    assert text(await ask(server, options={"num_predict": 20, **old})) == plain


async def test_seeds(server: Server) -> None:
    async def said(**options: Any) -> str:
        return text(await ask(server, options={"num_predict": 30, "temperature": 1, **options}))

    assert await said(seed=42) == await said(seed=42)
    assert await said(seed=42) != await said(seed=43)
    assert await said(seed=-5) == await said(seed=-5), "only -1 asks for another each time"
    assert await said(seed=2**32 + 42) == await said(seed=42), "32 bits count"
    assert await said() != await said()
    assert await said(seed=-1) != await said(seed=-1)


@pytest.mark.parametrize(
    ("option", "value", "name", "least"),
    [("num_keep", -2, "n_keep", -1), ("repeat_last_n", -2, "repeat_last_n", 0)],
)
async def test_what_llama_server_refuses(
    server: Server, option: str, value: int, name: str, least: int
) -> None:
    reply = await ask(server, options={option: value})
    assert reply.status == 400
    message = (
        f"Field '{name}': Value must be between {least} <= value <= 2147483647, but got {value}"
    )
    assert json.loads(reply.json()["error"]) == {
        "error": {"code": 400, "message": message, "type": "invalid_request_error"}
    }


@pytest.mark.parametrize("value", [0, -0.5, -1])
@pytest.mark.parametrize("stream", [True, False])
async def test_a_repeat_penalty_is_above_zero(server: Server, value: float, stream: bool) -> None:
    reply = await ask(server, stream=stream, options={"repeat_penalty": value})
    assert reply.status == 400
    assert json.loads(reply.json()["error"])["error"] == {
        "code": 400,
        "message": "Failed to initialize samplers: penalty_repeat must be finite and greater than 0",
        "type": "invalid_request_error",
    }
    assert (await ask(server, options={"repeat_penalty": 1e-9})).status == 200


@pytest.mark.parametrize(("token", "shown"), [(-1, 2**64 - 1), (10**9, 10**9), (2**32 + 999, 999)])
async def test_a_context_of_another_model(server: Server, token: int, shown: int) -> None:
    """llama-server's refusal, as Ollama relays it; a token is 32 bits there."""
    reply = await ask(server, context=[1, token])
    assert reply.status == 500
    prefix, _, relayed = reply.json()["error"].partition("detokenize error: ")
    assert prefix == ""
    error = json.loads(relayed)["error"]
    assert (error["code"], error["type"]) == (500, "server_error")
    assert error["message"].startswith(
        f"vector::_M_range_check: __n (which is {shown}) >= this->size() (which is "
    )


@pytest.mark.parametrize("value", [0, -1, 10**6])
async def test_any_other_look_back_is_taken(server: Server, value: int) -> None:
    assert (await ask(server, options={"repeat_last_n": value})).status == 200


async def test_stop_strings(server: Server) -> None:
    whole = text(await ask(server, options={"num_predict": 40}))
    stop = whole[10:13]
    body = (await ask(server, options={"num_predict": 40, "stop": ["", stop, "never"]})).json()
    assert body["response"] == whole[: whole.find(stop)]
    assert body["done_reason"] == "stop"
    at_once = (await ask(server, options={"num_predict": 40, "stop": [whole[:2]]})).json()
    assert (at_once["response"], at_once["done_reason"]) == ("", "stop")


# ------------------------------------------------------------------------------- log-probabilities


@pytest.mark.parametrize("route", ROUTES)
async def test_log_probabilities(server: Server, route: str) -> None:
    """Ten tokens, ten entries (contract §10, 56)."""
    options = {"num_predict": 10}
    body = (await ask(server, route, logprobs=True, top_logprobs=3, options=options)).json()
    assert len(body["logprobs"]) == 10
    for item in body["logprobs"]:
        assert list(item) == ["token", "logprob", "bytes", "top_logprobs"]
        assert item["bytes"] == list(item["token"].encode())
        values = [other["logprob"] for other in item["top_logprobs"]]
        assert len(values) == 3
        assert values == sorted(values, reverse=True)
    plain = (await ask(server, route, logprobs=True, options=options)).json()
    assert all("top_logprobs" not in item for item in plain["logprobs"])
    assert "logprobs" not in (await ask(server, route, top_logprobs=3, options=options)).json()


@pytest.mark.parametrize("top", [-1, 21])
@pytest.mark.parametrize("route", ROUTES)
async def test_more_alternatives_than_there_may_be(server: Server, route: str, top: int) -> None:
    """Refused before a model is looked for."""
    reply = await ask(server, route, model="none", logprobs=True, top_logprobs=top)
    assert (reply.status, reply.json()["error"]) == (
        400,
        "top_logprobs must be between 0 and 20",
    )


# ---------------------------------------------------------------------------------------- format


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize(
    ("form", "shown"),
    [
        ("xml", '"\\"xml\\""'),
        (5, '"5"'),
        (True, '"true"'),
        ([{}], '"[{}]"'),
    ],
)
async def test_formats_that_are_none(server: Server, route: str, form: Any, shown: str) -> None:
    reply = await ask(server, route, format=form)
    assert reply.status == 500
    expected = f'invalid format: {shown}; expected "json" or a valid JSON Schema object'
    assert reply.json()["error"] == expected


@pytest.mark.parametrize("route", ROUTES)
async def test_no_format(server: Server, route: str) -> None:
    plain = text(await ask(server, route))
    assert text(await ask(server, route, format="")) == plain
    assert text(await ask(server, route, format=None)) == plain


@pytest.mark.parametrize("route", ROUTES)
async def test_json_and_schemas(server: Server, route: str) -> None:
    options = {"num_predict": 200}
    assert text(await ask(server, route, format="json", options=options)).startswith("{")
    schema = {"type": "object", "properties": {"n": {"enum": [1, 2]}}, "required": ["n"]}
    reply = await ask(server, route, format=schema, options=options)
    assert json.loads(text(reply))["n"] in (1, 2)
    assert reply.json()["done_reason"] == "stop"


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("route", ROUTES)
async def test_a_schema_that_is_none(server: Server, route: str, stream: bool) -> None:
    """llama-server's JSON inside Ollama's, with its status, streamed or not."""
    reply = await ask(server, route, format={"type": "banana"}, stream=stream)
    assert reply.status == 400
    assert json.loads(reply.json()["error"]) == {
        "error": {
            "code": 400,
            "message": "Field 'json_schema': \"json_schema\": JSON schema conversion failed:\n"
            "JSON schema error at #: unrecognized type banana",
            "type": "invalid_request_error",
        }
    }


async def test_a_hostile_schema_hurts_nobody(server: Server) -> None:
    deep = b'{"not":' * 2000 + b"{}" + b"}" * 2000
    body = b'{"model": "m", "prompt": "x", "stream": false, "format": ' + deep + b"}"
    assert (await server.ask("POST /api/generate", body)).status == 400
    wide = {"enum": [f"value {n}" for n in range(100_000)]}
    assert (
        json.loads(text(await ask(server, format=wide, options={"num_predict": 50})))
        in wide["enum"]
    )
    assert (await ask(server)).status == 200
