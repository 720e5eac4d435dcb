"""Request bodies on every route: what Go's decoder takes, and what it says of the rest (§0)."""

from __future__ import annotations

from typing import Any

import pytest
from lhama_testing_http import Create, Reply, Server

ROUTES = {
    "POST /api/generate": "GenerateRequest",
    "POST /api/chat": "ChatRequest",
    "POST /api/embed": "EmbedRequest",
    "POST /api/embeddings": "EmbeddingRequest",
    "POST /api/show": "ShowRequest",
    "POST /api/create": "CreateRequest",
    "POST /api/copy": "CopyRequest",
    "POST /api/pull": "PullRequest",
    "POST /api/push": "PushRequest",
    "DELETE /api/delete": "DeleteRequest",
}
"""Every route that reads a JSON body, and the Go type it reads it into."""

WITHOUT_MODEL = {
    "POST /api/generate": (404, "model '' not found"),
    "POST /api/chat": (400, "model is required"),
    "POST /api/embed": (404, "model '' not found"),
    "POST /api/embeddings": (400, "model is required"),
    "POST /api/show": (400, "model is required"),
    "POST /api/create": (400, "invalid model name"),
    "POST /api/copy": (400, 'source "" is invalid'),
    "POST /api/pull": (400, "invalid model name"),
    "POST /api/push": (400, "model is required"),
    "DELETE /api/delete": (400, "model is required"),
}

TYPES: dict[str, dict[str, str]] = {
    "GenerateRequest": {
        **dict.fromkeys(("model", "prompt", "suffix", "system", "template"), "string"),
        **dict.fromkeys(("stream", "raw", "truncate", "shift"), "bool"),
        **dict.fromkeys(("_debug_render_only", "logprobs"), "bool"),
        "context": "[]int",
        "images": "[]api.ImageData",
        "options": "map[string]interface {}",
        "top_logprobs": "int",
    },
    "ChatRequest": {
        "model": "string",
        "messages": "[]api.Message",
        **dict.fromkeys(("stream", "truncate", "shift", "_debug_render_only", "logprobs"), "bool"),
        "tools": "api.Tools",
        "options": "map[string]interface {}",
        "top_logprobs": "int",
    },
    "EmbedRequest": {
        "model": "string",
        "truncate": "bool",
        "dimensions": "int",
        "options": "map[string]interface {}",
    },
    "EmbeddingRequest": {
        **dict.fromkeys(("model", "prompt"), "string"),
        "options": "map[string]interface {}",
    },
    "ShowRequest": {
        **dict.fromkeys(("model", "name", "system", "template"), "string"),
        "verbose": "bool",
        "options": "map[string]interface {}",
    },
    "CreateRequest": {
        **dict.fromkeys(("model", "name", "quantize", "draft_quantize", "from"), "string"),
        **dict.fromkeys(("remote_host", "template", "system", "renderer"), "string"),
        **dict.fromkeys(("parser", "requires", "quantization"), "string"),
        "stream": "bool",
        **dict.fromkeys(("files", "draft_files", "adapters"), "map[string]string"),
        **dict.fromkeys(("parameters", "info"), "map[string]interface {}"),
        "messages": "[]api.Message",
    },
    "CopyRequest": dict.fromkeys(("source", "destination"), "string"),
    "PullRequest": {
        **dict.fromkeys(("model", "name", "username", "password"), "string"),
        **dict.fromkeys(("insecure", "stream"), "bool"),
    },
    "PushRequest": {
        **dict.fromkeys(("model", "name", "username", "password"), "string"),
        **dict.fromkeys(("insecure", "stream"), "bool"),
    },
    "DeleteRequest": dict.fromkeys(("model", "name"), "string"),
}
"""Every field with a type that Go's decoder checks by itself."""

WRONG: dict[str, tuple[str, str]] = {
    "string": ("{}", "object"),
    "bool": ('"yes"', "string"),
    "int": ("1.5", "number 1.5"),
}
"""For each Go type a value it does not take, and what Go calls that; for others a string."""


def _said(reply: Reply, status: int) -> str:
    """The text of an error that came as errors come."""
    assert reply.status == status, reply.body
    assert reply.header("content-type") == "application/json; charset=utf-8"
    assert list(reply.json()) == ["error"]
    return str(reply.json()["error"])


@pytest.mark.parametrize("route", ROUTES)
async def test_bodies_that_are_no_object(server: Server, route: str) -> None:
    go = ROUTES[route]
    for body, error in {
        b"": "missing request body",
        b" \r\n\t ": "missing request body",
        b'{"model":': "unexpected EOF",
        b"{": "unexpected EOF",
        b"not json": "invalid character 'o' in literal null (expecting 'u')",
        b"{bad": "invalid character 'b' looking for beginning of object key string",
        b"\xef\xbb\xbf{}": "invalid character '\u00ef' looking for beginning of value",
        b"[]": f"json: cannot unmarshal array into Go value of type api.{go}",
        b'"x"': f"json: cannot unmarshal string into Go value of type api.{go}",
        b"12": f"json: cannot unmarshal number into Go value of type api.{go}",
        b"true": f"json: cannot unmarshal bool into Go value of type api.{go}",
    }.items():
        assert _said(await server.ask(route, body), 400) == error


@pytest.mark.parametrize("route", ROUTES)
async def test_null_and_empty_objects_name_no_model(server: Server, route: str) -> None:
    status, error = WITHOUT_MODEL[route]
    for body in (b"null", b"{}", b' {"zzz": [1]} trailing', b'{"model":null,"source":null}'):
        assert _said(await server.ask(route, body), status) == error


@pytest.mark.parametrize("route", ROUTES)
async def test_every_field_of_the_wrong_type(server: Server, route: str) -> None:
    struct = ROUTES[route]
    for field, go in TYPES[struct].items():
        value, found = WRONG.get(go, ('"x"', "string"))
        body = f'{{"{field.upper()}":{value}}}'.encode()
        assert _said(await server.ask(route, body), 400) == (
            f"json: cannot unmarshal {found} into Go struct field {struct}.{field} of type {go}"
        )


@pytest.mark.parametrize("route", ["POST /api/generate", "POST /api/chat"])
@pytest.mark.parametrize(
    ("member", "error"),
    [
        ('"think":"deep"', 'invalid think value: "deep" (must be "high", "medium", "low", "max",'),
        ('"think":3', 'think must be a boolean or string ("high", "medium", "low", "max", true,'),
        ('"think":[]', "think must be a boolean or string"),
        ('"keep_alive":"soon"', 'time: invalid duration "soon"'),
        ('"keep_alive":""', 'time: invalid duration ""'),
        ('"keep_alive":"5"', 'time: missing unit in duration "5"'),
        ('"keep_alive":"5x"', 'time: unknown unit "x" in duration "5x"'),
        ('"keep_alive":true', "Unsupported type: 'bool'"),
        ('"keep_alive":{}', "Unsupported type: 'map[string]interface {}'"),
        ('"keep_alive":[]', "Unsupported type: '[]interface {}'"),
    ],
)
async def test_types_that_read_themselves(
    server: Server, route: str, member: str, error: str
) -> None:
    said = _said(await server.ask(route, b'{"model":"x",' + member.encode() + b"}"), 400)
    assert said.startswith(error)


@pytest.mark.parametrize("route", ["POST /api/embed", "POST /api/embeddings"])
async def test_embeddings_have_a_keep_alive_too(server: Server, route: str) -> None:
    assert _said(await server.ask(route, b'{"keep_alive":true}'), 400) == "Unsupported type: 'bool'"


@pytest.mark.parametrize(
    ("member", "error"),
    [
        ({"images": ["data:image/png;base64,aGk="]}, "illegal base64 data at input byte 4"),
        ({"images": ["aGk"]}, "illegal base64 data at input byte 0"),
        (
            {"images": [5]},
            "json: cannot unmarshal number into Go struct field "
            "ChatRequest.messages.images of type api.ImageData",
        ),
        (
            {"content": [{"type": "text", "text": "hi"}]},
            "json: cannot unmarshal array into Go struct field "
            "ChatRequest.messages.content of type string",
        ),
        (
            {"role": 1},
            "json: cannot unmarshal number into Go struct field "
            "ChatRequest.messages.role of type string",
        ),
        (
            {"tool_calls": {}},
            "json: cannot unmarshal object into Go struct field "
            "ChatRequest.messages.tool_calls of type []api.ToolCall",
        ),
        (
            {"tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]},
            "Value looks like object, but can't find closing '}' symbol",
        ),
    ],
)
async def test_messages(server: Server, member: dict[str, Any], error: str) -> None:
    body = {"model": "x", "messages": [{"role": "user", "content": "hi", **member}]}
    assert _said(await server.ask("POST /api/chat", body), 400) == error


async def test_content_may_be_null_and_roles_are_not_checked(
    server: Server, create: Create
) -> None:
    await create("ref")
    message = {"role": "ODD", "content": None}
    body = {"model": "ref", "messages": [message], "_debug_render_only": True}
    reply = await server.ask("POST /api/chat", body)
    assert reply.status == 200
    assert "<|im_start|>odd\n<|im_end|>" in reply.json()["_debug_info"]["rendered_template"]


async def test_the_content_type_of_a_request_does_not_matter(server: Server) -> None:
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        reply = await server.ask("POST /api/show", {"model": "nope"}, **{"Content-Type": kind})
        assert _said(reply, 404) == "model 'nope:latest' not found"


async def test_errors_are_escaped_for_html(server: Server) -> None:
    reply = await server.ask("POST /api/copy", {"source": "<&>"})
    assert reply.body == b'{"error":"source \\"\\u003c\\u0026\\u003e\\" is invalid"}'
