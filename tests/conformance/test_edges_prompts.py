"""Sharp edges of Ollama's contract (§10): from a request to the prompt, from tokens to the answer."""

from __future__ import annotations

import base64
import json
from copy import deepcopy
from typing import Any

import pytest
from lhama_testing_http import Create, Server

from lhama.backends.reference.model import Behaviour
from lhama.backends.reference.tokenizer import ReferenceTokenizer
from lhama.daemon.prompt.build import ModelFacts, render
from lhama.daemon.prompt.output import OutputParser
from lhama.daemon.prompt.thinking import Tags, ThinkingSplitter
from lhama.daemon.protocol.options import Options
from lhama.daemon.protocol.types import ChatRequest
from lhama.daemon.runner.answer import Answer
from lhama.daemon.web.generation import Generation
from lhama.daemon.wire.messages import Delta, Done, Generate, Message, Prompt
from lhama.plugins.backend import RowResult

GENERATE, CHAT = "POST /api/generate", "POST /api/chat"
GO = "{{- range .Messages }}[{{ .Role }}] {{ .Content }}\n{{ end }}[assistant]"
THINKING = GO.replace(
    "{{ .Content }}", "{{ if .Thinking }}<t>{{ .Thinking }}</t>{{ end }}{{ .Content }}"
)
TOOLS = GO.replace(
    "{{ .Content }}",
    '{{ if .ToolCalls }}<call>{"name": "{{ (index .ToolCalls 0).Function.Name }}"}</call>{{ end }}'
    "{{ .Content }}{{ .Tools }}",
)
WEATHER = {"type": "function", "function": {"name": "weather"}}
PNG, JPG = (base64.b64encode(data).decode() for data in (b"\x89PNG one", b"\xff\xd8 two"))


async def rendered(server: Server, route: str, **members: Any) -> dict[str, Any]:
    body = {"model": "ref", "_debug_render_only": True, **members}
    reply = await server.ask(route, body)
    assert reply.status == 200, reply.body
    info: dict[str, Any] = reply.json()["_debug_info"]
    return info


def user(content: str, **more: Any) -> dict[str, Any]:
    return {"role": "user", "content": content, **more}


@pytest.mark.parametrize("parser", ["tools", "thinking"])
def test_edge_07_logprobs_do_not_wait_for_text_that_is_held_back(parser: str) -> None:
    """What may still become a call or a thought is kept, and its tokens' logprobs go out alone."""
    prompt = Prompt(go_template=TOOLS if parser == "tools" else THINKING)
    prompt.tools = [WEATHER] if parser == "tools" else []
    prompt.think = parser == "thinking"
    tokenizer = ReferenceTokenizer()
    answer = Answer(1, tokenizer, [], OutputParser(prompt, ""))
    sent = []
    for token in tokenizer.encode("<ca", add_special=False, parse_special=False):
        delta = answer.feed(RowResult(0, 0, token, -0.5, ()))
        assert delta is not None
        sent.append(delta)
    if parser == "tools":
        assert [d.content for d in sent] == ["", "", ""]
    assert [len(d.logprobs) for d in sent] == [1, 1, 1]


@pytest.mark.parametrize("template", ["", GO], ids=["jinja", "go"])
async def test_edge_10_images_reach_models_without_eyes(
    server: Server, create: Create, template: str
) -> None:
    await create("ref", template=template)
    info = await rendered(server, CHAT, messages=[user("look", images=[PNG, JPG])])
    assert "[img-0][img-1]look" in info["rendered_template"]
    assert info["image_count"] == 2
    reply = await server.ask(CHAT, {"model": "ref", "messages": [user("look", images=[PNG])]})
    assert reply.status in (400, 500), "the runner refuses, not the daemon"
    assert "ultimodal" in reply.json()["error"]


@pytest.mark.parametrize("template", ["", GO], ids=["jinja", "go"])
async def test_edge_11_placeholders_are_filled_in_order(
    server: Server, create: Create, template: str
) -> None:
    await create("ref", template=template)
    turns = [user("a [img] b [img] c", images=[PNG, JPG]), user("[img]", images=[PNG, JPG])]
    text = (await rendered(server, CHAT, messages=turns))["rendered_template"]
    assert "a [img-0] b [img-1] c" in text
    assert "[img-3][img-2]" in text, "an image without a place goes in front"


async def test_edge_12_generate_puts_markers_into_the_prompt(
    server: Server, create: Create
) -> None:
    await create("ref", template="")
    info = await rendered(server, GENERATE, prompt="what is [img]?", images=[PNG])
    assert "what is [img-0]?" in info["rendered_template"]
    assert PNG not in info["rendered_template"]
    assert info["image_count"] == 1


@pytest.mark.parametrize("template", ["", GO], ids=["jinja", "go"])
async def test_edge_13_a_context_becomes_text_in_front_of_the_prompt(
    server: Server, create: Create, template: str
) -> None:
    await create("ref", template=template, messages=[user("stored")])
    tokenizer = ReferenceTokenizer()
    before = tokenizer.encode("so far. ", add_special=False, parse_special=False)
    plain = (await rendered(server, GENERATE, prompt="q"))["rendered_template"]
    assert "stored" in plain
    text = (await rendered(server, GENERATE, prompt="q", context=before))["rendered_template"]
    assert text.startswith("so far. ")
    assert "stored" not in text
    text = (await rendered(server, GENERATE, prompt="q", context=[]))["rendered_template"]
    assert "stored" not in text, "an empty context is a context"


def test_edge_14_without_any_template_the_prompt_is_the_prompt() -> None:
    prompt = Prompt(messages=[Message("user", " as it is\n")], text=" as it is\n")
    assert render(prompt, ReferenceTokenizer(), ModelFacts(), 100).text == " as it is\n"


async def test_edge_16_system_messages_stay_where_they_are(server: Server, create: Create) -> None:
    await create("ref", template=GO, system="MODEL")
    turns = [user("one"), {"role": "system", "content": "between"}, user("two")]
    text = (await rendered(server, CHAT, messages=turns))["rendered_template"]
    assert text == "[system] MODEL\n[user] one\n[system] between\n[user] two\n[assistant]"
    text = (await rendered(server, CHAT, messages=turns[1:]))["rendered_template"]
    assert text == "[system] between\n[user] two\n[assistant]"


class Script:
    """A lease whose passes are written down; remembers what each was asked."""

    context = 100

    def __init__(self, *passes: list[Delta]) -> None:
        self._passes = list(passes)
        self.asked: list[Generate] = []

    async def generate(self, request: Generate, sink: Any) -> None:
        self.asked.append(deepcopy(request))
        for delta in self._passes.pop(0):
            sink([delta])


async def test_edge_17_a_constrained_answer_begins_again_after_its_thoughts() -> None:
    first = [
        Delta(1, thinking="hm"),
        Delta(1, "free text"),
        Delta(1, done=Done("stop", 1, 1, 1, 1)),
    ]
    second = [Delta(2, "{}"), Delta(2, done=Done("stop", 1, 1, 1, 1))]
    script, got = Script(first, second), list[Delta]()
    body = ChatRequest(format=b'{"type":"object"}')  # type: ignore[arg-type]
    prompt = Prompt(messages=[Message("user", "q")])
    lease: Any = script
    await Generation(lease, prompt, Options(), body, think_first=True).run(got.extend)
    assert (got[0].thinking, got[0].content, got[0].done) == ("hm", "", None)
    assert "".join(delta.content for delta in got) == "{}"
    assert [bool(request.grammar) for request in script.asked] == [False, True]
    assert script.asked[1].prompt.messages[-1] == Message("assistant", thinking="hm")


def test_edge_20_thoughts_begun_by_the_prompt_lose_leading_space_only() -> None:
    splitter = ThinkingSplitter(Tags("<think>", "</think>"), started=True)
    thought, content = splitter.feed(" \n a thought \n</think> said ")
    assert (thought, content) == ("a thought \n", "said ")


def test_edge_22_calls_have_ids_of_their_own() -> None:
    prompt = Prompt(go_template=TOOLS, tools=[WEATHER])
    text = '<call>{"name": "weather", "arguments": {"city": "Paris"}}</call>'
    ids = set()
    for cut in (text, *([text[:n], text[n:]] for n in range(1, len(text), 7))):
        parser = OutputParser(prompt, "")
        parts = [parser.feed(piece) for piece in ([cut] if isinstance(cut, str) else cut)]
        (call,) = [c for part in (*parts, parser.finish()) for c in part.tool_calls]
        assert call.id.startswith("call_")
        assert len(call.id) == 13
        assert call.id[5:].isalnum()
        assert call.id == call.id.lower()
        ids.add(call.id)
    assert len(ids) > 1


async def test_what_never_became_a_call_comes_with_the_last_line(
    server: Server, create: Create
) -> None:
    """Text that is held back as a call's beginning and ends there stands in the line of counts."""
    bare = GO.replace(
        "{{ .Content }}",
        "{{ if .ToolCalls }}{{ range .ToolCalls }}"
        '{"name": "{{ .Function.Name }}", "arguments": {{ .Function.Arguments }}}{{ end }}{{ end }}'
        "{{ .Content }}{{ .Tools }}",
    )
    beginning = '{"name": "weat'
    await create("ref", Behaviour(says=beginning), template=bare)
    body = {"model": "ref", "messages": [user("hi")], "tools": [WEATHER]}
    options = {"temperature": 0, "num_predict": len(beginning)}
    reply = await server.ask(CHAT, {**body, "options": options})
    (last,) = [json.loads(line) for line in reply.body.splitlines()]
    assert (last["done"], last["done_reason"]) == (True, "length")
    assert last["message"] == {"role": "assistant", "content": beginning}
    options["num_predict"] = 3
    plain = {**body, "tools": [], "options": options}
    *said, last = [json.loads(x) for x in (await server.ask(CHAT, plain)).body.splitlines()]
    assert "".join(line["message"]["content"] for line in said) == beginning[:3]
    assert last["message"]["content"] == ""
