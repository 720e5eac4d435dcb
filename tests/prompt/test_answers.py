"""Output parsing: however the text is cut into pieces, the parts come out the same."""

from __future__ import annotations

import random
import re

import pytest

from lhama.daemon.prompt.output import OutputParser
from lhama.daemon.prompt.parsers.parser import Parsed
from lhama.daemon.prompt.thinking import Tags, ThinkingSplitter, tags_of_go, tags_of_jinja
from lhama.daemon.prompt.toolcalls import ToolCallParser, tag_of_go, tag_of_jinja
from lhama.daemon.wire.messages import Prompt

THINK = Tags("<think>", "</think>")
THINKING_TEMPLATE = (
    "{{- range .Messages }}<|im_start|>{{ .Role }}\n"
    "{{ if .Thinking }}<think>{{ .Thinking }}</think>{{ end }}{{ .Content }}<|im_end|>\n{{ end }}"
)
TOOL_TEMPLATE = (
    "{{ .Tools }}{{- range .Messages }}{{ if .ToolCalls }}{{ range .ToolCalls }}<tool_call>"
    '{"name": "{{ .Function.Name }}"}</tool_call>{{ end }}{{ else }}{{ .Content }}{{ end }}{{ end }}'
)
TOOLS = [{"type": "function", "function": {"name": name}} for name in ("get", "get_weather")]


def pieces(text: str) -> list[list[str]]:
    """``text`` whole, letter by letter, and cut in two at every position."""
    halves = [[text[:i], text[i:]] for i in range(1, len(text))]
    return [[text], list(text), *halves]


@pytest.mark.parametrize(
    ("text", "thought", "content"),
    [
        ("<think>a b</think>c", "a b", "c"),
        (" \n<think>\n a\n</think>\n\n c \n", "a\n", "c \n"),
        ("plain <think>no</think>", "", "plain <think>no</think>"),
        ("<thin air", "", "<thin air"),
        ("<think>a</thin</think>b</think>c", "a</thin", "b</think>c"),
        ("<think>a</think><think>b</think>", "a", "<think>b</think>"),
        ("<think>never closed </thi", "never closed </thi", ""),
        ("<think></think>c", "", "c"),
        ("<think>", "", ""),
        ("  <th", "", "  <th"),
        ("  ", "", "  "),
        ("", "", ""),
    ],
)
def test_thinking(text: str, thought: str, content: str) -> None:
    for cut in pieces(text):
        splitter = ThinkingSplitter(THINK)
        parts = [splitter.feed(piece) for piece in cut] + [splitter.finish()]
        assert "".join(p[0] for p in parts) == thought, cut
        assert "".join(p[1] for p in parts) == content, cut


def test_thinking_begun_by_the_prompt() -> None:
    for cut in pieces("\n a </think> c"):
        splitter = ThinkingSplitter(THINK, started=True)
        parts = [splitter.feed(piece) for piece in cut] + [splitter.finish()]
        assert ("".join(p[0] for p in parts), "".join(p[1] for p in parts)) == ("a ", "c")


def test_thinking_is_sent_at_once() -> None:
    splitter = ThinkingSplitter(THINK, started=True)
    assert splitter.feed("Paris") == ("Paris", "")
    assert splitter.feed(" is <") == (" is ", "")
    assert splitter.feed("b> x") == ("<b> x", "")


def parse(tag: str, cut: list[str]) -> tuple[str, list[tuple[str, object]], list[int]]:
    parser = ToolCallParser(tag, ["get", "get_weather"], random.Random(1))
    content, calls = "", []
    for piece in cut:
        parsed = parser.feed(piece)
        content += parsed.content
        calls += parsed.tool_calls
    content += parser.finish().content
    return content, [(c.name, c.arguments) for c in calls], [c.index for c in calls]


@pytest.mark.parametrize(
    ("tag", "text", "content", "calls"),
    [
        (
            "<tool_call>",
            'Hi <tool_call>{"name": "get_weather", "arguments": {"a": "}\\" \\u007b", "b": [1]}}'
            '</tool_call>\n<tool_call>{"name":"get","parameters":"{\\"c\\":1}"}</tool_call> bye',
            "Hi ",
            [("get_weather", {"a": '}" {', "b": [1]}), ("get", {"c": 1})],
        ),
        ("<tool_call>", "a < b <tool", "a < b <tool", []),
        ("<tool_call>", "<tool_call>{broken}</tool_call>", "", []),
        (
            "<tool_call>",
            '<tool_call>{"name": get} {"name": "get", "arguments": {}}',
            "",
            [("get", {})],
        ),
        ("<tool_call>", '<tool_call>{"name": "other", "arguments": {}}', "", []),
        ("<tool_call>", '<tool_call>{"name": "get_weather_now", "arguments": {}}', "", []),
        ("<tool_call>", '{"name": "get", "arguments": {}}', '{"name": "get", "arguments": {}}', []),
        ("<call>", '<call>get\n{"x": {"y": 2}}', "", [("get", {"x": {"y": 2}})]),
        ("<call>", '<call>{"get": {"x": 1}}', "", [("get", {"x": 1})]),
        ("<call>", '<call>{"get": "", "name": "get"}', "", [("get", {})]),
        (
            "<call>",
            '<call>{"function": {"name": "get", "arguments": {"x": 1}}}',
            "",
            [("get", {"x": 1})],
        ),
        ("<call>", '<call>get_weather{"name": "Bob"}', "", [("get_weather", {"name": "Bob"})]),
        (
            "{",
            '{"name":"get","arguments":{"x":1}} {"name":"get"}',
            "",
            [("get", {"x": 1}), ("get", {})],
        ),
        ("{", '{\n "name":"other","arguments":{}} ', '{\n "name":"other","arguments":{}} ', []),
        ("{", 'No: {"name":"get"}', 'No: {"name":"get"}', []),
        ("{", '{"name":"get", "arg', '{"name":"get", "arg', []),
        (
            "[",
            '[{"name":"get","arguments":{}}, {"name":"get_weather","arguments":{"x":1}}]',
            "",
            [("get", {}), ("get_weather", {"x": 1})],
        ),
        ("[", "[1, [2]] are numbers", "[1, [2]] are numbers", []),
    ],
)
def test_tool_calls(tag: str, text: str, content: str, calls: list[tuple[str, object]]) -> None:
    for cut in pieces(text):
        assert parse(tag, cut) == (content, calls, list(range(len(calls)))), cut


def test_a_call_is_sent_as_soon_as_it_is_whole() -> None:
    parser = ToolCallParser("{", ["get"])
    assert parser.feed('{"name": "get", "arguments": {') == Parsed()
    text, _, (call,) = parser.feed("}}")
    assert text == ""
    assert re.fullmatch("call_[a-z0-9]{8}", call.id)


def test_deep_json_is_no_call_and_no_crash() -> None:
    text = '<c>{"name": "get", "arguments": ' + '{"a":' * 20_000 + "1" + "}" * 20_001
    assert parse("<c>", [text]) == ("", [], [])


def test_tags() -> None:
    assert tags_of_go(THINKING_TEMPLATE) == THINK
    assert tags_of_go("{{ range .Messages }}{{ .Content }}{{ end }}{{ .Think }}") is None
    assert tags_of_go("{{ range .Other }}<a>{{ .Thinking }}</a>{{ end }}") is None
    loop = "{{ range $i, $_ := .Messages }}{{ with .Thinking }} <t>\n{{ . }}{{ end }}{{ end }}"
    assert tags_of_go(loop) is None
    assert tag_of_go(TOOL_TEMPLATE) == "<tool_call>"
    assert tag_of_go("{{ range .Messages }}{{ .ToolCalls }}{{ end }}") == "{"
    bare = '{{ range .Messages }}{{ if .ToolCalls }}\n{{ range .ToolCalls }}{"name": {{ . }}{{ end }}{{ end }}{{ end }}'
    assert tag_of_go(bare) == "{"
    array = '{{ if and .ToolCalls .Role }}[TOOL_CALLS] [{"a"{{ end }}'
    assert tag_of_go(array) == "[TOOL_CALLS] ["
    assert tag_of_go("{{ if .ToolCalls }}{{ .Content }}<late>{{ end }}") == "{"
    assert tags_of_jinja("{{ '<think>' }}x{{ '</think>' }}") == THINK
    assert tags_of_jinja("{{ content.split('</think>')[-1] }}") == THINK
    assert tags_of_jinja("{{ content }}") is None
    assert tag_of_jinja("... <tool_call> ...") == "<tool_call>"
    assert tag_of_jinja("tools") == "{"


def run(parser: OutputParser, cut: list[str]) -> Parsed:
    parts = [parser.feed(piece) for piece in cut] + [parser.finish()]
    calls = [call for part in parts for call in part.tool_calls]
    return Parsed("".join(p.content for p in parts), "".join(p.thinking for p in parts), calls)


TEXT = '<think>hm</think>Hi <tool_call>{"name":"get","arguments":{"x":1}}</tool_call>'


@pytest.mark.parametrize(
    ("prompt", "text", "jinja", "content", "thought", "calls"),
    [
        (Prompt(), "", "", TEXT, "", 0),
        (Prompt(raw="x", think=True, tools=TOOLS), "<think>", "", TEXT, "", 0),
        (Prompt(go_template=THINKING_TEMPLATE), "", "", TEXT, "", 0),
        (Prompt(go_template=THINKING_TEMPLATE, think=False), "", "", TEXT, "", 0),
        (Prompt(go_template=THINKING_TEMPLATE, think=True), "", "", TEXT[17:], "hm", 0),
        (Prompt(go_template=TOOL_TEMPLATE, tools=TOOLS), "", "", "<think>hm</think>Hi ", "", 1),
        (Prompt(go_template=TOOL_TEMPLATE), "", "", TEXT, "", 0),
        (
            Prompt(go_template=THINKING_TEMPLATE + TOOL_TEMPLATE, tools=TOOLS, think="high"),
            "",
            "",
            "Hi ",
            "hm",
            1,
        ),
        (Prompt(think=True, tools=TOOLS), "", "<think></think><tool_call>", "Hi ", "hm", 1),
        (Prompt(think=False), "", "<think></think>", TEXT, "", 0),
        (Prompt(parser="no-such-parser"), "", "", TEXT, "", 0),
    ],
)
def test_output(
    prompt: Prompt, text: str, jinja: str, content: str, thought: str, calls: int
) -> None:
    for cut in pieces(TEXT):
        parsed = run(OutputParser(prompt, text, jinja), cut)
        assert (parsed.content, parsed.thinking) == (content, thought), cut
        assert [(c.name, c.arguments) for c in parsed.tool_calls] == [("get", {"x": 1})] * calls


@pytest.mark.parametrize("think", [True, None])
def test_output_after_an_open_tag_in_the_prompt(think: bool | None) -> None:
    by_jinja = OutputParser(Prompt(think=think), "…assistant\n<think>\n", "<think></think>")
    assert run(by_jinja, ["a</think>", "b"])[:2] == ("b", "a")


def test_a_built_in_parser_is_taken_by_name() -> None:
    parsed = run(OutputParser(Prompt(parser="qwen3-thinking", think=True), ""), ["a</think>", "b"])
    assert (parsed.thinking, parsed.content) == ("a", "b")


def test_raw_text_is_not_parsed() -> None:
    assert (
        run(OutputParser(Prompt(parser="qwen3-thinking", raw="x"), ""), ["a</think>b"])[0]
        == "a</think>b"
    )
