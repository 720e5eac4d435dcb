"""Built-in renderers and parsers as clients of the daemon see them (contract §7, §8, §10)."""

from __future__ import annotations

import base64
import json
import re
from typing import Any

import pytest
from lhama_testing_conversations import WEATHER
from lhama_testing_http import Create, Reply, Server

from lhama.backends.reference.model import Behaviour
from lhama.daemon.prompt.parsers.registry import PARSERS

GENERATE, CHAT, SHOW = "POST /api/generate", "POST /api/chat", "POST /api/show"
HELLO = [{"role": "user", "content": "hello"}]
CALL = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Rome", "b": {"z": 1, "a": 2}}}\n</tool_call>'
RENDERERS = {"qwen3-thinking": "qwen3-vl-thinking", "deepseek3": "deepseek3.1"}
"""Where a parser's renderer has another name."""
HARMONY = (
    "{{ .System }}{{ range .Tools }}{{ .Function.Name }};{{ end }}{{ .ThinkLevel }}"
    "{{ range .Messages }}<|start|>{{ .Role }}<|message|>{{ .Content }}{{ .Thinking }}<|end|>{{ end }}"
    "<|start|>assistant"
)


async def ask(server: Server, route: str, **members: Any) -> Reply:
    return await server.ask(route, {"model": "ref", **members})


async def lines(server: Server, route: str, **members: Any) -> list[dict[str, Any]]:
    reply = await ask(server, route, **members)
    assert reply.status == 200, reply.body
    return [json.loads(line) for line in reply.body.splitlines()]


async def prompt(server: Server, route: str = CHAT, **members: Any) -> str:
    reply = await ask(server, route, _debug_render_only=True, **members)
    assert reply.status == 200, reply.body
    return str(reply.json()["_debug_info"]["rendered_template"])


def joined(chunks: list[dict[str, Any]], key: str) -> str:
    return "".join(chunk.get("message", chunk).get(key, "") for chunk in chunks)


async def test_config_shows_and_is_inherited(server: Server, create: Create) -> None:
    await create("ref", renderer="qwen3-vl-thinking", parser="qwen3-thinking")
    await server.ask("POST /api/create", {"model": "heir", "from": "ref", "stream": False})
    for name in ("ref", "heir"):
        shown = (await server.ask(SHOW, {"model": name})).json()
        assert "\nRENDERER qwen3-vl-thinking\nPARSER qwen3-thinking\n" in shown["modelfile"]
        assert shown["capabilities"] == ["completion", "tools", "thinking"]
    assert (await prompt(server, messages=HELLO)).endswith("<|im_start|>assistant\n<think>\n")


@pytest.mark.parametrize(
    ("parser", "can"),
    [
        ("passthrough", []),
        ("olmo3-think", ["thinking"]),
        ("qwen3-coder", ["tools"]),
        ("cohere", ["tools", "thinking"]),
        ("nobody-knows", []),
    ],
)
async def test_capabilities_follow_from_the_parser(
    server: Server, create: Create, parser: str, can: list[str]
) -> None:
    await create("ref", parser=parser)
    assert (await ask(server, SHOW)).json()["capabilities"] == ["completion", *can]
    if "tools" not in can:
        refused = await ask(server, CHAT, messages=HELLO, tools=[WEATHER])
        expected = "registry.ollama.ai/library/ref:latest does not support tools"
        assert (refused.status, refused.json()["error"]) == (400, expected)


async def test_an_unknown_renderer_is_an_error_and_an_unknown_parser_none(
    server: Server, create: Create
) -> None:
    await create("ref", renderer="x", parser="y")
    for route, asked in ((CHAT, {"messages": HELLO}), (GENERATE, {"prompt": "hello"})):
        for more in ({}, {"_debug_render_only": True}):
            reply = await ask(server, route, **asked, **more)
            assert (reply.status, reply.json()) == (500, {"error": 'unknown renderer "x"'})
    await create("ref", Behaviour(says="<think>a"), parser="y")
    answer = (await ask(server, CHAT, messages=HELLO, stream=False)).json()
    assert answer["message"]["content"] == "<think>a"


async def test_edge_15_own_templates_and_suffixes_bypass_the_renderer(
    server: Server, create: Create
) -> None:
    await create(
        "ref", renderer="qwen3-coder", parser="qwen3-coder", template="{{ .Prompt }}+{{ .Suffix }}"
    )
    assert "<|im_start|>user\nhello" in await prompt(server, GENERATE, prompt="hello")
    assert await prompt(server, GENERATE, prompt="hello", suffix="end") == "hello+end"
    own = await prompt(server, GENERATE, prompt="hello", template="T {{ .Prompt }}{{ .Response }}")
    assert own == "T hello"
    assert await prompt(server, GENERATE, prompt="hello", raw=True) == "hello"


async def test_edge_11_renderers_number_images(server: Server, create: Create) -> None:
    await create("ref", renderer="qwen3-vl-instruct", parser="qwen3-vl-instruct")
    image = base64.b64encode(b"png").decode()
    asked = [
        {"role": "user", "content": "see", "images": [image, image]},
        {"role": "user", "content": "and [img]?", "images": [image]},
    ]
    shown = (await ask(server, CHAT, messages=asked, _debug_render_only=True)).json()["_debug_info"]
    assert "user\n[img-0][img-1] see<|im_end|>" in shown["rendered_template"]
    assert "user\nand [img-2]?<|im_end|>" in shown["rendered_template"]
    assert shown["image_count"] == 3


async def test_a_last_assistant_message_is_continued(server: Server, create: Create) -> None:
    await create("ref", Behaviour(says=" fine</think>"), renderer="qwen3.5", parser="qwen3.5")
    asked = [*HELLO, {"role": "assistant", "content": "I am"}]
    assert (await prompt(server, messages=asked)).endswith("</think>\n\nI am")
    answer = (await ask(server, CHAT, messages=asked, stream=False)).json()["message"]
    assert answer == {"role": "assistant", "content": " fine</think>"}


async def test_an_answer_in_parts(server: Server, create: Create) -> None:
    says = f"hm\n</think>\n\nLook:\n{CALL}\n{CALL}"
    await create("ref", Behaviour(says=says), parser="qwen3-thinking")
    chunks = await lines(server, CHAT, messages=HELLO, tools=[WEATHER])
    assert joined(chunks, "thinking") == "hm"
    assert joined(chunks, "content") == "Look:"
    called = [chunk for chunk in chunks if chunk["message"].get("tool_calls")]
    assert [chunk["done"] for chunk in called] == [False, False]
    (first,), (second,) = (chunk["message"]["tool_calls"] for chunk in called)
    assert first["id"].startswith("call_")
    assert first["id"] != second["id"]
    expected = {
        "index": 1,
        "name": "get_weather",
        "arguments": {"city": "Rome", "b": {"z": 1, "a": 2}},
    }
    assert second["function"] == expected
    assert (chunks[-1]["done"], chunks[-1]["done_reason"]) == (True, "stop")
    whole = (await ask(server, CHAT, messages=HELLO, tools=[WEATHER], stream=False)).json()
    assert (whole["message"]["thinking"], whole["message"]["content"]) == ("hm", "Look:")
    assert len(whole["message"]["tool_calls"]) == 2
    off = (await ask(server, CHAT, messages=HELLO, think=False, stream=False)).json()["message"]
    assert (off.get("thinking"), off["content"]) == (None, "hm\n</think>\n\nLook:")


async def test_edge_07_logprobs_come_while_text_is_held_back(
    server: Server, create: Create
) -> None:
    await create("ref", Behaviour(says=f"a{CALL}"), parser="qwen3")
    chunks = await lines(server, CHAT, messages=HELLO, tools=[WEATHER], logprobs=True)
    silent = [
        chunk for chunk in chunks if chunk.get("logprobs") and not chunk["message"]["content"]
    ]
    assert len(silent) > len(CALL) - 3
    assert sum(len(chunk.get("logprobs", [])) for chunk in chunks) >= len(CALL)


async def test_edge_19_a_broken_call_ends_the_answer_with_an_error(
    server: Server, create: Create
) -> None:
    await create("ref", Behaviour(says="Hi <tool_call>{broken}</tool_call> more"), parser="qwen3")
    error = "failed to parse JSON: invalid character 'b' looking for beginning of object key string"
    asked = {"messages": HELLO, "tools": [WEATHER]}
    chunks = await lines(server, CHAT, **asked)
    assert joined(chunks[:-1], "content") == "Hi"
    assert chunks[-1] == {"error": error}
    for route, more in ((CHAT, asked), (GENERATE, {"prompt": "hello"})):
        whole = await ask(server, route, stream=False, **more)
        assert (whole.status, whole.json()) == (500, {"error": error})
    short = await ask(server, CHAT, stream=False, options={"num_predict": 2}, **asked)
    assert short.json()["message"]["content"] == "Hi"


CHOICE = {"type": "string", "enum": ["left"]}


@pytest.mark.parametrize(
    ("parser", "says"),
    [
        ("qwen3-thinking", "hm</think>right"),
        ("qwen3.5", "hm</think>right"),
        ("gemma4", "<|channel>thought\nhm<channel|>right"),
        ("cohere", "hm<|END_THINKING|><|START_TEXT|>right"),
    ],
)
async def test_edge_18_and_17_structured_output(
    server: Server, create: Create, parser: str, says: str
) -> None:
    """Thoughts are free, then the answer begins anew under the schema; without thoughts at once."""
    await create("ref", Behaviour(says=says), parser=parser)
    chunks = await lines(server, CHAT, messages=HELLO, format=CHOICE)
    assert (chunks[0]["message"]["content"], chunks[0]["done"]) == ("", False)
    assert joined(chunks, "thinking") == "hm"
    assert json.loads(joined(chunks, "content")) == "left"
    chunks = await lines(server, CHAT, messages=HELLO, format=CHOICE, think=False)
    assert joined(chunks, "thinking") == ""
    assert json.loads(joined(chunks, "content")) == "left"
    chunks = await lines(server, GENERATE, prompt="hello", format=CHOICE)
    assert json.loads(joined(chunks, "response")) == "left"


async def test_generate_sends_calls_with_the_end(server: Server, create: Create) -> None:
    await create("ref", Behaviour(says=f"hm</think>a {CALL} b"), parser="qwen3-thinking")
    chunks = await lines(server, GENERATE, prompt="hello", think=True)
    assert (joined(chunks, "thinking"), joined(chunks, "response")) == ("hm", "ab")
    (end,) = (chunk for chunk in chunks if "tool_calls" in chunk)
    assert end["done"] is True
    assert "id" not in end["tool_calls"][0]


async def test_generate_tells_parsers_only_what_was_asked(server: Server, create: Create) -> None:
    """Gemma 4's takes a default for no thinking, and drops the trace (§1)."""
    says = "<|channel>thought\nhm<channel|>a"
    await create("ref", Behaviour(says=says), renderer="gemma4", parser="gemma4")
    assert "<|think|>" in await prompt(server, GENERATE, prompt="hello")
    for think, thought in (({}, None), ({"think": True}, "hm")):
        whole = (await ask(server, GENERATE, prompt="hello", stream=False, **think)).json()
        assert (whole.get("thinking"), whole["response"]) == (thought, "a")
    whole = (await ask(server, CHAT, messages=HELLO, stream=False)).json()["message"]
    assert whole == {"role": "assistant", "content": "a", "thinking": "hm"}


@pytest.fixture
async def harmony(create: Create) -> Create:
    """``await harmony(says)`` makes the model answer so."""

    async def make(says: str) -> None:
        info = {"model_family": "gptoss"}
        await create("ref", Behaviour(says=says), template=HARMONY, info=info)

    return make


async def test_gpt_oss_answers_in_harmony(server: Server, harmony: Create) -> None:
    await harmony(
        "<|channel|>analysis<|message|>hm<|end|><|start|>assistant to=functions.get_weather"
        '<|channel|>commentary json<|message|>{"city": "Rome"}'
    )
    assert (await ask(server, SHOW)).json()["capabilities"] == ["completion", "tools", "thinking"]
    dashed = {"type": "function", "function": {"name": "get-weather"}}
    asked = {"messages": HELLO, "tools": [dashed, WEATHER]}
    assert (await prompt(server, think="max", **asked)).startswith(
        "get_weather;get_weather_2;high<"
    )
    assert "medium<" in await prompt(server, **asked)
    chunks = await lines(server, CHAT, **asked)
    assert joined(chunks, "thinking") == "hm"
    (call,) = (c for chunk in chunks for c in chunk["message"].get("tool_calls", []))
    assert call["function"]["name"] == "get-weather"


def test_edge_21_harmony_reads_its_special_tokens_but_no_end_of_a_call() -> None:
    tags = ("<|start|>", "<|end|>", "<|message|>", "<|channel|>", "<|constrain|>")
    assert PARSERS["harmony"].tags == tags


@pytest.mark.parametrize(
    ("parser", "says"),
    [
        ("qwen3-thinking", f"hm</think>\n\nSo: {CALL}"),
        ("gemma4", "<|channel>thought\nhm<channel|>So:"),
        ("olmo3-think", "hm</think>So:"),
        ("deepseek3", "hm</think>So:"),
    ],
)
async def test_edge_57_no_tag_of_the_format_reaches_the_client(
    server: Server, create: Create, parser: str, says: str
) -> None:
    await create("ref", Behaviour(says=says), renderer=RENDERERS.get(parser, parser), parser=parser)
    asked = {"messages": HELLO, "think": True}
    if parser != "olmo3-think":
        asked["tools"] = [WEATHER]
    chunks = await lines(server, CHAT, **asked)
    said = joined(chunks, "thinking") + joined(chunks, "content")
    assert "hm" in said
    assert "So:" in said
    assert not re.search(r"<\|?/?\w|\w\|>|</", said), said


async def test_gpt_oss_answers_under_a_schema_in_the_final_channel(
    server: Server, harmony: Create
) -> None:
    await harmony(
        "<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>final<|message|>x"
    )
    chunks = await lines(server, CHAT, messages=HELLO, format=CHOICE)
    assert joined(chunks, "thinking") == "hm"
    assert json.loads(joined(chunks, "content")) == "left"
    whole = await ask(server, GENERATE, prompt="hello", format=CHOICE, stream=False)
    assert json.loads(whole.json()["response"]) == "left"


async def test_edge_52_gpt_oss_names_the_tool_with_broken_arguments(
    server: Server, harmony: Create
) -> None:
    await harmony("<|channel|>commentary to=functions.get_weather<|message|>{broken")
    reply = await ask(server, CHAT, messages=HELLO, tools=[WEATHER], stream=False)
    assert reply.status == 500
    assert reply.json()["error"].startswith(
        "error parsing tool call: raw='{broken', err=invalid char"
    )


async def test_gemma4_is_small_or_large_by_its_name(server: Server, create: Create) -> None:
    await create("ref", renderer="gemma4", parser="gemma4")
    asked = {"messages": HELLO, "think": False, "_debug_render_only": True}
    await server.ask("POST /api/copy", {"source": "ref", "destination": "gemma4:31b"})
    for name, thought in (("ref", False), ("gemma4:31b", True)):
        reply = (await server.ask(CHAT, {"model": name, **asked})).json()
        assert reply["_debug_info"]["rendered_template"].endswith("<channel|>") == thought


async def test_qwen3_forgets_the_thoughts_in_earlier_answers(
    server: Server, create: Create
) -> None:
    template = "{{ range .Messages }}[{{ .Content }}]{{ end }}"
    asked = [*HELLO, {"role": "assistant", "content": "<think>hm</think>\n\nfine"}, *HELLO]
    await create("ref", template=template, info={"model_family": "qwen3"})
    assert await prompt(server, messages=asked) == "[hello][fine][hello]"
    await create("ref", template=template)
    assert "hm" in await prompt(server, messages=asked)
    await server.ask("POST /api/copy", {"source": "ref", "destination": "deepseek-r1:7b"})
    reply = await server.ask(
        CHAT, {"model": "deepseek-r1:7b", "messages": asked, "_debug_render_only": True}
    )
    assert reply.json()["_debug_info"]["rendered_template"] == "[hello][fine][hello]"
