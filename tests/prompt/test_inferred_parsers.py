"""Output of models that nobody gave a parser: the Jinja template tells how they call and think."""

from __future__ import annotations

import random

import pytest
from lhama_testing_conversations import CLOCK, WEATHER

from lhama.daemon.errors import BadRequest
from lhama.daemon.prompt.callids import calls_with_ids
from lhama.daemon.prompt.jinja import JinjaTemplate
from lhama.daemon.prompt.output import OutputParser
from lhama.daemon.prompt.parsers.inferred import choose
from lhama.daemon.prompt.parsers.parser import Parsed, ParseError
from lhama.daemon.wire.messages import Message, Prompt, ToolCall

TOOLS = [WEATHER, CLOCK]
ROME = ("get_weather", {"city": "Rome"})
JSON = '{"name": "get_weather", "arguments": {"city": "Rome"}}'


def read(parser: OutputParser, pieces: list[str]) -> Parsed:
    parsed = [parser.feed(piece) for piece in pieces] + [parser.finish()]
    return Parsed(
        "".join(part.content for part in parsed),
        "".join(part.thinking for part in parsed),
        [call for part in parsed for call in part.tool_calls],
    )


@pytest.mark.parametrize(
    ("marks", "prompt_end", "text", "content", "thinking"),
    [
        # Llama 3.x: bare JSON; Granite, Hermes, Mistral Nemo: JSON behind a tag.
        ("tools ipython", "", '{"name": "get_weather", "parameters": {"city": "Rome"}}', "", ""),
        ("<|tool_call|> <think></think>", "", f"<think>hm</think>\n<|tool_call|>[{JSON}]", "", "hm"),
        ("<tool_call>", "", f"a <tool_call>\n{JSON}\n</tool_call>", "a ", ""),
        ("[TOOL_CALLS]", "", f"[TOOL_CALLS][{JSON}]", "", ""),
        # Families with a parser of their own.
        (
            "<|channel|><|message|><|start|>",
            "<|start|>assistant",
            "<|channel|>analysis<|message|>hm<|end|><|start|>assistant to=functions.get_weather"
            '<|channel|>commentary json<|message|>{"city": "Rome"}',
            "",
            "hm",
        ),
        (
            "<|START_ACTION|>",
            "<|CHATBOT_TOKEN|>",
            "<|START_THINKING|>hm<|END_THINKING|><|START_RESPONSE|>a<|END_RESPONSE|><|START_ACTION|>"
            '[{"tool_name": "get_weather", "parameters": {"city": "Rome"}}]<|END_ACTION|>',
            "a",
            "hm",
        ),
        (
            "<|START_ACTION|>",
            "<|START_THINKING|>",
            'hm<|END_THINKING|><|START_ACTION|>[{"tool_name": "get_weather", "parameters": '
            '{"city": "Rome"}}]<|END_ACTION|>',
            "",
            "hm",
        ),
        (
            "<|tool_call>call: <|channel>",
            "",
            '<|channel>thought\nhm<channel|>a<|tool_call>call:get_weather{city:<|"|>Rome<|"|>}<tool_call|>',
            "a",
            "hm",
        ),
        ("[TOOL_CALLS] [ARGS]", "", '[THINK]hm[/THINK]a[TOOL_CALLS]get_weather[ARGS]{"city": "Rome"}', "a", "hm"),
        (
            "<think></think><tool_call><function=",
            "<think>\n",
            "hm\n</think>\n\na\n<tool_call>\n<function=get_weather>\n<parameter=city>\nRome\n</parameter>\n"
            "</function>\n</tool_call>",
            "a",
            "hm\n",
        ),
        (
            "<think></think><tool_call><arg_key>",
            "<think>",
            "hm</think>a<tool_call>get_weather<arg_key>city</arg_key><arg_value>Rome</arg_value></tool_call>",
            "a",
            "hm",
        ),
        (
            "<think></think><｜tool▁calls▁begin｜>```json",
            "",
            "<think>hm</think>a<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather\n"
            '```json\n{"city": "Rome"}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>',
            "a",
            "hm",
        ),
        (
            "<｜tool▁calls▁begin｜>",
            "",
            "a<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>get_weather<｜tool▁sep｜>"
            '{"city": "Rome"}<｜tool▁call▁end｜><｜tool▁calls▁end｜>',
            "a",
            "",
        ),
        ("<|tool_list_start|>", "", '<|tool_call_start|>[get_weather(city="Rome")]<|tool_call_end|>a', "a", ""),
        ("<function_calls>", "", '<function_calls>get_weather(city="Rome")</function_calls>', "", ""),
    ],
)  # fmt: skip
def test_calls_and_thoughts(
    marks: str, prompt_end: str, text: str, content: str, thinking: str
) -> None:
    jinja = "{{ tools }}" + marks
    for pieces in ([text], list(text)):
        prompt = Prompt(tools=TOOLS, think=True)
        parsed = read(OutputParser(prompt, prompt_end, jinja, random.Random(1)), pieces)
        assert (parsed.content, parsed.thinking) == (content, thinking)
        assert [(call.name, call.arguments) for call in parsed.tool_calls] == [ROME]


def test_edge_52_broken_arguments_are_an_error_that_names_the_tool() -> None:
    text = '<tool_call>{"name": "clock", "arguments": {broken}}</tool_call>'
    with pytest.raises(
        ParseError, match='^llama-server returned invalid tool call arguments for "clock": inv'
    ):
        read(OutputParser(Prompt(tools=TOOLS), "", "<tool_call> tools"), list(text))
    by_go = Prompt(
        tools=TOOLS,
        go_template="{{ range .Messages }}{{ if .ToolCalls }}<tool_call>{{ end }}{{ end }}",
    )
    assert read(OutputParser(by_go, "", ""), [text]) == Parsed("", "", [])


def test_what_renders_decides() -> None:
    jinja = "<tool_call><function="
    assert choose(Prompt(), jinja).name == "qwen3-coder"  # type: ignore[union-attr]
    assert choose(Prompt(parser="glm-4.7"), jinja).name == "glm-4.7"  # type: ignore[union-attr]
    assert choose(Prompt(go_template="x"), jinja) is None
    assert choose(Prompt(renderer="qwen3-coder"), jinja) is None
    assert choose(Prompt(parser="unknown"), "") is None


CALL = ToolCall("get_weather", {})
MISTRAL = (
    "{% for m in messages %}{% if m.tool_calls %}{% for c in m.tool_calls %}"
    "{% if c.id|length != 9 %}{{ raise_exception('bad id') }}{% endif %}{{ c.id }};{% endfor %}"
    "{% elif m.role == 'tool' %}{{ m.tool_call_id }};{% endif %}{% endfor %}"
)


def test_calls_get_the_ids_that_templates_ask_for() -> None:
    turns = [
        Message("assistant", tool_calls=[ToolCall("a", {}, id="call_abcdefgh"), ToolCall("b", {})]),
        Message("tool", "1", tool_name="b"),
        Message("tool", "2"),
        Message("assistant", tool_calls=[ToolCall("a", {}, id="x")]),
        Message("tool", "3", tool_call_id="x"),
        Message("tool", "4", tool_call_id="stray"),
    ]
    long = calls_with_ids(turns, short=False)
    assert [m.tool_call_id for m in long if m.role == "tool"] == [
        "call_00000001",
        "call_abcdefgh",
        "x",
        "stray",
    ]
    assert JinjaTemplate(MISTRAL).render(turns) == (
        "labcdefgh;l00000001;l00000001;labcdefgh;00000000x;00000000x;0000stray;"
    )
    with pytest.raises(BadRequest, match="bad id"):
        JinjaTemplate(MISTRAL.replace("c.id|length", "c.name|length")).render(turns)


def test_no_tools_are_no_list() -> None:
    """Templates ask whether ``tools`` can be walked before they count them."""
    template = JinjaTemplate(
        "{% if tools is iterable and tools|length > 0 %}yes{% else %}no{% endif %}"
    )
    assert template.render([Message("user", "x")]) == "no"
    assert template.render([Message("user", "x")], [CLOCK]) == "yes"
