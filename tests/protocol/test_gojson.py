"""Request bodies read as Go reads them, error texts and all."""

from __future__ import annotations

import json

import pytest
from lhama_testing_golden import Recording, recordings

from lhama.daemon.durations import FOREVER
from lhama.daemon.errors import BadRequest, Malformed
from lhama.daemon.protocol import gojson
from lhama.daemon.protocol.openai.requests import ChatCompletionRequest
from lhama.daemon.protocol.types import (
    ChatRequest,
    CopyRequest,
    CreateRequest,
    DeleteRequest,
    EmbeddingRequest,
    EmbedRequest,
    GenerateRequest,
    PullRequest,
    PushRequest,
    ShowRequest,
)

REQUESTS = {
    "/api/generate": GenerateRequest,
    "/api/chat": ChatRequest,
    "/api/embed": EmbedRequest,
    "/api/embeddings": EmbeddingRequest,
    "/api/show": ShowRequest,
    "/api/create": CreateRequest,
    "/api/copy": CopyRequest,
    "/api/delete": DeleteRequest,
    "/api/pull": PullRequest,
    "/api/push": PushRequest,
}
DECODER_TEXTS = ("json:", "invalid character", "missing request", "unexpected EOF", "think must")
DECODER_TEXTS += ("time:", "Unsupported type", "illegal base64", "invalid think")

bodies = recordings(
    *("bad", "generate", "chat", "embed", "embeddings", "show", "create", "copy", "delete", "pull"),
    where=lambda r: r.method != "GET",
)


@pytest.mark.parametrize("recording", bodies)
def test_recorded_bodies(recording: Recording) -> None:
    """Every recorded body reads, or fails with the recorded text."""
    request = REQUESTS[recording.path]
    error = json.loads(recording.reply)["error"] if recording.status == 400 else ""
    if recording.name == "bad_type_embed_input" or not error.startswith(DECODER_TEXTS):
        gojson.decode(recording.body, request)
        return
    with pytest.raises(BadRequest) as caught:
        gojson.decode(recording.body, request)
    assert caught.value.message == error


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b" \n\t", "missing request body"),
        (b"tru", "unexpected EOF"),
        (b"trux", "invalid character 'x' in literal true (expecting 'e')"),
        (b'{"model" 1}', "invalid character '1' after object key"),
        (b'{"model":1,}', "invalid character '}' looking for beginning of object key string"),
        (b'{"a":1 "b"}', "invalid character '\"' after object key:value pair"),
        (b'{"a":[1 2]}', "invalid character '2' after array element"),
        (b'{"a":[1,]}', "invalid character ']' looking for beginning of value"),
        (b'{"a":01}', "invalid character '1' after object key:value pair"),
        (b'{"a":1.}', "invalid character '}' after decimal point in numeric literal"),
        (b'{"a":1ex}', "invalid character 'x' in exponent of numeric literal"),
        (b'{"a":-}', "invalid character '}' in numeric literal"),
        (b'{"a":"\n"}', "invalid character '\\n' in string literal"),
        (b'{"a":"\\x"}', "invalid character 'x' in string escape code"),
        (b'{"a":"\\u12g4"}', "invalid character 'g' in \\u hexadecimal character escape"),
        (b"{'a':1}", "invalid character '\\'' looking for beginning of object key string"),
        (b"[" * 20_000, "invalid character '[' exceeded max depth"),
        (b'{"images":' + b"[" * 5_000 + b"]" * 5_000 + b"}", "exceeded max depth"),
        (b"5", "json: cannot unmarshal number into Go value of type api.GenerateRequest"),
        (
            b'{"context":["x"]}',
            "json: cannot unmarshal string into Go struct field GenerateRequest.context of type int",
        ),
        (
            b'{"top_logprobs":1.5}',
            "json: cannot unmarshal number 1.5 into Go struct field "
            "GenerateRequest.top_logprobs of type int",
        ),
        (
            b'{"PROMPT":5}',
            "json: cannot unmarshal number into Go struct field GenerateRequest.prompt of type string",
        ),
        (b'{"images":["aGk"]}', "illegal base64 data at input byte 0"),
        (b'{"images":["aGk=a"]}', "illegal base64 data at input byte 4"),
        (b'{"images":["a=Gk"]}', "illegal base64 data at input byte 1"),
        (b'{"think":"hi"}', 'invalid think value: "hi" (must be'),
        (b'{"keep_alive":true}', "Unsupported type: 'bool'"),
        (b'{"keep_alive":[1]}', "Unsupported type: '[]interface {}'"),
    ],
)
def test_error_texts(body: bytes, error: str) -> None:
    with pytest.raises(BadRequest) as caught:
        gojson.decode(body, GenerateRequest)
    assert error in caught.value.message


def test_an_error_of_a_custom_type_wins_over_an_earlier_mismatch() -> None:
    with pytest.raises(BadRequest, match="Unsupported type"):
        gojson.decode(b'{"prompt":5,"keep_alive":true}', GenerateRequest)


def test_a_mismatch_inside_a_message_names_the_request() -> None:
    body = b'{"messages":[{"tool_calls":[{"function":{"name":5}}]}]}'
    with pytest.raises(BadRequest) as caught:
        gojson.decode(body, ChatRequest)
    assert caught.value.message == (
        "json: cannot unmarshal number into Go struct field "
        "ChatRequest.messages.tool_calls.function.name of type string"
    )


def test_a_mismatch_inside_a_plain_struct_names_the_struct() -> None:
    with pytest.raises(BadRequest) as caught:
        gojson.decode(b'{"tools":[{"function":{"name":5}}]}', ChatRequest)
    assert caught.value.message == (
        "json: cannot unmarshal number into Go struct field "
        "ToolFunction.tools.function.name of type string"
    )


def test_keys_in_any_case_and_the_last_duplicate() -> None:
    request = gojson.decode(b'{"Model":"a","MODEL":"b","x":{}} trailing', GenerateRequest)
    assert request.model == "b"


def test_null_is_the_zero_value() -> None:
    body = b'{"model":null,"stream":null,"messages":[null,{"content":null}],"keep_alive":null}'
    request = gojson.decode(body, ChatRequest)
    assert (request.model, request.stream, request.keep_alive) == ("", None, None)
    assert [m.content for m in request.messages] == ["", ""]
    assert gojson.decode(b"null", ChatRequest) == ChatRequest()


def test_broken_text_is_replaced() -> None:
    request = gojson.decode(b'{"model":"a\xff","prompt":"\\ud800!\\ud83d\\ude00"}', GenerateRequest)
    assert (request.model, request.prompt) == ("a�", "�!😀")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("300", 300 * 10**9),
        ("1.5", 1_500_000_000),
        ("-1", FOREVER),
        ("1e300", FOREVER),
        ('"-1m"', FOREVER),
        ('"0"', 0),
    ],
)
def test_keep_alive(text: str, expected: int) -> None:
    body = f'{{"keep_alive":{text}}}'.encode()
    assert gojson.decode(body, GenerateRequest).keep_alive == expected


def test_raw_format_keeps_its_bytes() -> None:
    request = gojson.decode(b'{"format": {"b": 1,  "a":2} }', GenerateRequest)
    assert bytes(request.format) == b'{"b": 1,  "a":2}'
    assert bytes(gojson.decode(b"{}", GenerateRequest).format) == b""


def test_a_format_further_in_is_the_same_whatever_else_is_in_the_body() -> None:
    """Key ``user`` comes again as a role, so the body is read the exact way."""
    schema = b'{"type":"object","properties":{"n":{"const":1.50}}}'
    body = b'{"messages":[{"role":"user"}],"user":"me","response_format":{"json_schema":{"schema":%b}}}'
    read = gojson.decode(body % schema, ChatCompletionRequest)
    assert read.response_format is not None
    assert read.response_format.json_schema is not None
    assert bytes(read.response_format.json_schema.schema) == schema


def test_a_number_that_is_none_is_of_the_wrong_type_where_a_type_reads_itself() -> None:
    for field, error in (
        (
            "think",
            'think must be a boolean or string ("high", "medium", "low", "max", true, or false)',
        ),
        (
            "keep_alive",
            "json: cannot unmarshal number 1e400 into Go struct field "
            "GenerateRequest.keep_alive of type float64",
        ),
    ):
        with pytest.raises(Malformed) as caught:
            gojson.decode(b'{"%b": 1e400}' % field.encode(), GenerateRequest)
        assert caught.value.message == error


def test_huge_numbers_become_floats_where_anything_goes() -> None:
    body = b'{"options":{"seed":123456789012345678901234567890}}'
    assert gojson.decode(body, GenerateRequest).options == {"seed": 1.2345678901234568e29}


def test_images_are_decoded() -> None:
    assert gojson.decode(b'{"images":["aG\\nk="]}', GenerateRequest).images == [b"hi"]


@pytest.mark.parametrize(
    ("body", "error"),
    [
        # Numbers are named as they were written.
        (
            b'{"top_logprobs":1.50}',
            "number 1.50 into Go struct field ChatRequest.top_logprobs of type int",
        ),
        (
            b'{"top_logprobs":1e3}',
            "number 1e3 into Go struct field ChatRequest.top_logprobs of type int",
        ),
        (
            b'{"top_logprobs":99999999999999999999}',
            "number 99999999999999999999 into Go struct field ChatRequest.top_logprobs of type int",
        ),
        (
            b'{"options":{"a":[1,1e999]}}',
            "number 1e999 into Go struct field ChatRequest.options of type float64",
        ),
        (
            b'{"keep_alive":-1E400}',
            "number -1E400 into Go struct field ChatRequest.keep_alive of type float64",
        ),
        # A key that comes twice is read twice.
        (
            b'{"model":5,"model":"a"}',
            "number into Go struct field ChatRequest.model of type string",
        ),
        (
            b'{"messages":[{"images":[[1,300]]}]}',
            "number 300 into Go struct field ChatRequest.messages.images of type uint8",
        ),
        # What decodes itself is told as the field around it.
        (
            b'{"tools":[{"function":{"parameters":{"properties":{"a":{"description":5}}}}}]}',
            "number into Go struct field "
            "ToolFunctionParameters.tools.function.parameters.properties.description of type string",
        ),
        (
            b'{"tools":[{"function":{"parameters":{"properties":{"a":{"type":[1]}}}}}]}',
            "number into Go struct field "
            "ToolFunctionParameters.tools.function.parameters.properties.type of type string",
        ),
        (
            b'{"tools":[{"function":{"parameters":{"properties":'
            b'{"a":{"properties":{"b":{"required":"c"}}}}}}}]}',
            "string into Go struct field ToolFunctionParameters."
            "tools.function.parameters.properties.properties.required of type []string",
        ),
        (
            b'{"tools":[{"function":{"parameters":{"required":[true]}}}]}',
            "bool into Go struct field ToolFunctionParameters."
            "tools.function.parameters.required of type string",
        ),
    ],
)
def test_places_and_numbers_in_mismatches(body: bytes, error: str) -> None:
    with pytest.raises(BadRequest) as caught:
        gojson.decode(body, ChatRequest)
    assert caught.value.message == "json: cannot unmarshal " + error


@pytest.mark.parametrize(
    "body",
    [
        b'{"messages":[{"tool_calls":[{"function":{"name":"f","arguments":"{}"}}]}]}',
        b'{"tools":[{"function":{"parameters":{"properties":[]}}}]}',
    ],
)
def test_ordered_maps_take_nothing_but_objects(body: bytes) -> None:
    """The text of the library that reads them; clients that send arguments as text know it."""
    with pytest.raises(BadRequest) as caught:
        gojson.decode(body, ChatRequest)
    assert caught.value.message == "Value looks like object, but can't find closing '}' symbol"


def test_a_key_that_comes_twice() -> None:
    body = b'{"model":"a","options":{"seed":1,"top_k":2},"stream":false,"options":{"seed":3},"model":null,"stream":null}'
    request = gojson.decode(body, ChatRequest)
    assert request.model == "a"  # null has no effect on a text
    assert request.stream is None  # and empties a pointer
    assert request.options == {"seed": 3, "top_k": 2}  # maps are added to


def test_each_broken_byte_is_replaced() -> None:
    assert gojson.decode(b'{"model":"\xe2\x82!"}', ChatRequest).model == "\ufffd\ufffd!"


def test_bytes_may_come_as_numbers() -> None:
    assert gojson.decode(b'{"images":[[104,105],null]}', GenerateRequest).images == [b"hi", b""]


def test_unknown_members_may_be_deep() -> None:
    body = b'{"zzz":' + b"[" * 9000 + b"]" * 9000 + b',"model":"a"}'
    assert gojson.decode(body, ChatRequest).model == "a"


def test_large_whole_numbers_are_rounded_where_anything_goes() -> None:
    options = gojson.decode(b'{"options":{"seed":9007199254740993}}', ChatRequest).options
    assert options == {"seed": 9007199254740992.0}
