"""Built-in parsers: what an answer holds does not depend on how its text was cut."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass, field
from typing import Any

import pytest
from lhama_testing_conversations import TOOLS

from lhama.daemon.prompt.parsers.parser import ParseError, Parser, Request
from lhama.daemon.prompt.parsers.registry import PARSERS
from lhama.daemon.prompt.tools import read_all
from lhama.daemon.wire.messages import Message

UNSET = "unset"
Call = tuple[str, dict[str, Any]]
ROME = {"city": "Rome"}
W = "get_weather"
DS_CALL = "<｜tool▁call▁begin｜>{}<｜tool▁call▁end｜>"


@dataclass(frozen=True)
class Answer:
    """A text and what it holds. ``think`` is the request's, ``last`` the conversation's end."""

    parser: str
    text: str
    content: str = ""
    thinking: str = ""
    calls: list[Call] = field(default_factory=list)
    think: bool | str | None = None
    last: Message | None = None
    tools: bool = True


def make(name: str, answer: Answer | None = None) -> Parser:
    answer = answer or Answer(name, "")
    tools = read_all(TOOLS) if answer.tools else []
    return PARSERS[name](Request(tools, answer.think, answer.last, random.Random(1)))


def read(parser: Parser, pieces: list[str]) -> tuple[str, str, list[Call], list[int]]:
    parsed = [parser.feed(piece) for piece in pieces] + [parser.finish()]
    calls = [call for part in parsed for call in part.tool_calls]
    assert all(re.fullmatch("call_[a-z0-9]{8}", call.id) for call in calls)
    return (
        "".join(part.content for part in parsed),
        "".join(part.thinking for part in parsed),
        [(call.name, call.arguments) for call in calls],
        [call.index for call in calls],
    )


def cuts(text: str) -> list[list[str]]:
    """``text`` whole, letter by letter, and in two at every place."""
    return [[text], list(text), *([text[:at], text[at:]] for at in range(1, len(text)))]


def json_call(arguments: str) -> str:
    return f'<tool_call>\n{{"name": "{W}", "arguments": {arguments}}}\n</tool_call>'


def xml_call(*parameters: tuple[str, str]) -> str:
    listed = "".join(f"<parameter={key}>\n{value}\n</parameter>\n" for key, value in parameters)
    return f"<tool_call>\n<function={W}>\n{listed}</function>\n</tool_call>"


def pair_call(*pairs: tuple[str, str], line: str = "\n") -> str:
    listed = "".join(
        f"<arg_key>{key}</arg_key>{line}<arg_value>{value}</arg_value>{line}"
        for key, value in pairs
    )
    return f"<tool_call>{W}{line}{listed}</tool_call>"


def atem(*parameters: tuple[str, str], name: str = W) -> str:
    listed = "".join(f'<atem:parameter name="{k}">{v}</atem:parameter>\n' for k, v in parameters)
    invoke = f'<atem:invoke name="{name}">\n{listed}</atem:invoke>'
    return f"<atem:function_calls>\n{invoke}\n</atem:function_calls>"


TYPED = (("city", 'Ro<m>e & "x"'), ("days", "3"), ("hours", "[9, 12]"), ("where", '{"lon": 1}'))
TYPED_READ = {"city": 'Ro<m>e & "x"', "days": 3, "hours": [9, 12], "where": {"lon": 1}}
ASSISTANT = Message("assistant", "It is")

ANSWERS = [
    Answer("passthrough", "<think>a</think> b \n", "<think>a</think> b \n"),
    # ------------------------------------------------------------------------------------- qwen3
    Answer("qwen3", "Hi  \n" + json_call('{"city": "Rome"}') + "\n\nbye \n", "Hibye", "", [(W, ROME)]),
    Answer("qwen3", "<think>a</think>b", "<think>a</think>b"),
    Answer("qwen3", json_call('{"a": "</tool_cal", "b": [1.0, {"z": 1e2}]}'), "", "",
           [(W, {"a": "</tool_cal", "b": [1, {"z": 100}]})]),
    Answer("qwen3-thinking", " hm \n</think>\n\n Rome \n", "Rome", " hm"),
    Answer("qwen3-thinking", "\n<think>\n hm</think>Rome", "Rome", "hm", think=True),
    Answer("qwen3-thinking", "<thin air</think>", "", "<thin air", think=True),
    Answer("qwen3-thinking", "hm " + json_call("{}") + json_call('{"city": "Rome"}'), "", "hm",
           [(W, {}), (W, ROME)], think="high"),
    Answer("qwen3-thinking", "Rome</think>", "Rome</think>", think=False),
    Answer("qwen3-thinking", "never ends </th", "", "never ends </th"),
    Answer("qwen3-vl-instruct", "a" + json_call('{"city": "Rome"}') + "\n b", "ab", "", [(W, ROME)]),
    Answer("qwen3-vl-thinking", "hm</think>\n\na", "a", "hm"),
    Answer("qwen3-vl-thinking", "a</think>", "a</think>", last=ASSISTANT),
    # -------------------------------------------------------------------------------- qwen3-coder
    Answer("qwen3-coder", "Hi\n\n" + xml_call(*TYPED) + "\n" + xml_call(), "Hi", "",
           [(W, TYPED_READ), (W, {})]),
    Answer("qwen3-coder", xml_call(("city", "a\n<b=c>\n\n</x>"), ("days", "null"), ("unknown", "7")),
           "", "", [(W, {"city": "a\n<b=c>\n\n</x>", "days": None, "unknown": "7"})]),
    Answer("qwen3-coder", xml_call(("days", "soon"), ("hours", "nine")), "", "",
           [(W, {"days": "soon", "hours": "nine"})]),
    Answer("qwen3-coder", "a < b <tool", "a < b <tool"),
    Answer("qwen3.5", "<think>\nhm\n</think>\n\n" + xml_call(("city", "Rome")), "", "hm", [(W, ROME)]),
    Answer("qwen3.5", "hm\n" + xml_call(("city", "Rome")) + "done", "done", "hm", [(W, ROME)]),
    Answer("qwen3.5", "a</think>", "a</think>", think=False),
    Answer("qwen3.5", "a</think>", "a</think>", last=ASSISTANT),
    Answer("ornith", "hm</think>a", "a", "hm"),
    Answer("nemotron-3-nano", "\n hm</think>\n" + xml_call(("city", "Rome")), "", "hm", [(W, ROME)]),
    Answer("nemotron-3.5-nano", "<think></think>a", "a"),
    # --------------------------------------------------------------------------------- ministral
    Answer("ministral", '[THINK] hm \n[/THINK]\n a [TOOL_CALLS]get_weather[ARGS]{"city": "R}\\"{"} b',
           "a b", " hm \n", [(W, {"city": 'R}"{'})]),
    Answer("ministral", "[TOOL_CALLS]clock[ARGS]{}[TOOL_CALLS]clock[ARGS]{\"a\": {\"b\": []}}", "", "",
           [("clock", {}), ("clock", {"a": {"b": []}})]),
    Answer("ministral", "[1, 2] [TOOL", "[1, 2] [TOOL"),
    # ----------------------------------------------------------------------------------- harmony
    Answer("harmony", "<|channel|>analysis<|message|> hm <|end|><|start|>assistant"
           "<|channel|>final<|message|> Rome \n", " Rome \n", " hm "),
    Answer("harmony", "<|channel|>commentary<|message|>First<|end|><|start|>assistant"
           " to=functions.get_weather<|channel|>commentary <|constrain|>json<|message|>{\"city\": \"Rome\"}",
           "First", "", [(W, ROME)]),
    Answer("harmony", "<|channel|>commentary to=functions.get_weather<|constrain|>json<|message|>{}<|end|>"
           "<|start|>assistant<|channel|>analysis to=python<|message|>{\"x\": 1}", "", "",
           [(W, {}), ("python", {"x": 1})]),
    Answer("harmony", " goes on", " goes on", last=ASSISTANT),
    Answer("harmony", " goes on<|end|><|start|>assistant<|channel|>final<|message|>Rome", "Rome",
           " goes on", last=Message("assistant", thinking="hm")),
    Answer("harmony", "<|channel|>final<|message|>a <|en", "a <|en"),
    # ------------------------------------------------------------------------- deepseek3, cogito
    Answer("deepseek3", "hm \n</think>\n a  <｜tool▁calls▁begin｜>"
           + DS_CALL.format('get_weather<｜tool▁sep｜>{"city": "Rome"}') + "\n"
           + DS_CALL.format("clock<｜tool▁sep｜>{}") + "<｜tool▁calls▁end｜> b ", "ab ", "hm",
           [(W, ROME), ("clock", {})], think=True),
    Answer("deepseek3", "a </think> b", "a </think> b"),
    Answer("deepseek3", "<｜tool▁calls▁begin｜>" + DS_CALL.format("f<｜tool▁sep｜>{broken")
           + DS_CALL.format("clock<｜tool▁sep｜>{}") + "<｜tool▁calls▁end｜>", "", "", [("clock", {})]),
    Answer("deepseek3", "a <｜tool▁output▁begin｜> 20 <｜tool▁output▁end｜> b", "a  20  b"),
    Answer("cogito", "<｜tool▁calls▁begin｜>"
           + DS_CALL.format('function<｜tool▁sep｜>get_weather\n```json\n{"city": "Rome"}\n```')
           + "<｜tool▁calls▁end｜>", "", "", [(W, ROME)]),
    Answer("cogito", "hm</think>\n\na", "a", "hm", think=True, tools=False),
    Answer("cogito", "a<｜tool▁outputs▁begin｜>20<｜tool▁outputs▁end｜>\nb", "ab"),
    # ------------------------------------------------------------------------------------- gemma
    Answer("gemma4", "<|channel>thought\n hm \n<channel|>\n a \n", "a \n", " hm", think=True),
    Answer("gemma4", "<|channel>thought\nhm<channel|>a", "a"),
    Answer("gemma4-no-thinking", "<|channel>thought\nhm<channel|>a", "a", think=True),
    Answer("gemma4", "hm<channel|>a", "a", "hm", think=True, last=Message("tool", "20")),
    Answer("gemma4", 'a\n<|tool_call>call:get_weather{city:<|"|>Ro{m},e<|"|>,days:3,hours:[9,{a:null}]}'
           "<tool_call|><tool_call|>\n<|tool_response>b", "ab", "",
           [(W, {"city": "Ro{m},e", "days": 3, "hours": [9, {"a": None}]})]),
    Answer("gemma4", '<|tool_call>call:get_weather{city:<|"|>Rome}<tool_call|>', "", "", [(W, ROME)]),
    Answer("gemma4", "<|tool_call>call:get_weather{city:'Rome'}<tool_call|>", "", "", [(W, ROME)]),
    Answer("gemma4", "<|tool_call>call:get_weather{city:Rome, now, days: 2}<tool_call|>", "", "",
           [(W, {"city": "Rome, now", "days": 2})]),
    Answer("gemma4", "<|tool_call>call:get_weather{days:soon}<tool_call|>", "", "", []),
    Answer("gemma4", '<|tool_call>call:get_weather{city:<|"|>Rome<|"|>}', "", "", [(W, ROME)]),
    Answer("gemma4", "<|tool_call>call:get_weather{days:1", "", "", []),
    Answer("functiongemma", "a <start_function_call>call:get_weather{city:<escape>R, {o}<escape>,"
           "days:3,where:{lon:1.5,at:now},hours:[9,12]}<end_function_call> b", "a  b", "",
           [(W, {"city": "R, {o}", "days": 3, "where": {"lon": 1.5, "at": "now"}, "hours": [9, 12]})]),
    # --------------------------------------------------------------------------------------- glm
    Answer("glm-4.7", "hm\n</think>a\n" + pair_call(*TYPED) + "\n" + pair_call(line=""), "a", "hm",
           [(W, TYPED_READ), (W, {})]),
    Answer("glm-4.7", "\n<think>hm</think>a", "a", "hm", think=False),
    Answer("glm-4.7", " a ", " a", think=False),
    Answer("glm-4.7", "</think>" + f"<tool_call>{W}<arg_key>city</arg_key>Rome</arg_value>"
           "<arg_key>days<arg_value>2</arg_value></tool_call>", "", "", [(W, {"city": "Rome", "days": 2})]),
    Answer("glm-4.7", f"</think><tool_call>{W} city</arg_key><arg_value>Rome</arg_value></tool_call>", "", "",
           [(W, ROME)]),
    Answer("glm-4.7", "</think>" + pair_call(("city", "Rome")).removesuffix("</tool_call>"), "", "", [(W, ROME)]),
    Answer("glm-ocr", "a" + pair_call(("city", "Rome")), "a", "", [(W, ROME)]),
    # -------------------------------------------------------------------------------------- lfm2
    Answer("lfm2", "a <|tool_call_start|>[get_weather(city='Rome', days=3), clock(a=None, b=True,"
           " c={'x': \"it's\", 'y': [1]}, d=soon)]<|tool_call_end|> b ", "ab ", "",
           [(W, {"city": "Rome", "days": 3}),
            ("clock", {"a": None, "b": True, "c": {"x": "it's", "y": [1]}, "d": "soon"})]),
    Answer("lfm2", "<|tool_call_start|>[get_weather(city=)]<|tool_call_end|>a", "a"),
    Answer("lfm2-thinking", " <think> hm </think>\n a ", "a ", "hm", think=True),
    Answer("lfm2-thinking", "  a ", "a ", think=True),
    # --------------------------------------------------------------------------------------- olmo
    Answer("olmo3", "a <function_calls>get_weather(city=\"R(o),m\\\"e\", hours=[9, 'x'], where={\"lon\": 1})\n"
           "clock()</function_calls>\nb", "a \nb", "",
           [(W, {"city": 'R(o),m"e', "hours": [9, "x"], "where": {"lon": 1}}), ("clock", {})]),
    Answer("olmo3", "<function_calls>clock()\nnonsense</function_calls>a", "a"),
    Answer("olmo3-think", "hm\n</think>\n\na \n", "a \n", "hm"),
    Answer("olmo3-think", "a</think>", "a</think>", last=ASSISTANT),
    # ------------------------------------------------------------------------------------ laguna
    Answer("laguna", "\n<think>hm\n</think>\na\n" + pair_call(*TYPED) + "b", "ab", "hm", [(W, TYPED_READ)],
           think=True),
    Answer("laguna", "</think>a<think>no</think>b", "ab"),
    Answer("laguna", f'a <tool_call>{{"name": "{W}", "arguments": {{"city": "Rome"}}}}</tool_call>', "a", "",
           [(W, ROME)]),
    Answer("laguna", f'a {{"name": "{W}", "arguments": {{"city": "Rome"}}}}\nb', "ab", "", [(W, ROME)]),
    Answer("laguna", 'a {"name": "other"} {} { "x', 'a {"name": "other"} {} { "x'),
    Answer("laguna", f"a <user>{W}{{}}</user> b <user>me</user>", "ab <user>me</user>", "", [(W, {})]),
    Answer("poolside-v1", "hm</think>a", "a", "hm", think=True, last=ASSISTANT),
    # ------------------------------------------------------------------------------------ cohere
    Answer("cohere", " hm \n<|END_THINKING|>\n<|START_TEXT|> a \n<|END_TEXT|><|END_OF_TURN_TOKEN|>", " a \n",
           " hm"),
    Answer("cohere", '<|START_ACTION|>[\n{"tool_call_id": "0", "tool_name": "get_weather", "parameters":'
           ' {"city": "Rome"}}, {"tool_name": "clock"}]<|END_ACTION|>', "", "", [(W, ROME), ("clock", {})],
           think=False),
    Answer("cohere", '<|START_ACTION|>[{"tool_name": "clock"} {"tool_name": bad}]', "", "", [("clock", {})],
           think=False),
    Answer("cohere", "<|START_RESPONSE|>a<|END_RESPONSE|>", "a", think=False),
    Answer("cohere", "bare <|END", "bare <|END", think=False),
    Answer("cohere", " goes on<|END_TEXT|>", " goes on", last=ASSISTANT),
    # ----------------------------------------------------------------------------------- glimmer
    Answer("glimmer", " to=self<|message|> hm <|eom|><|start|>assistant to=user<|message|> a <|eot|>", " a ",
           " hm "),
    Answer("glimmer", " to=self<|message|>hm<|start|>assistant to=get_weather<|message|>" + atem(*TYPED)
           + "<|eot|>", "", "hm", [(W, TYPED_READ)]),
    Answer("glimmer", "<|message|>" + atem(("city", " Rome")) + "<|eot|>", "", "", [(W, {"city": " Rome"})]),
    Answer("glimmer", " to=clock.clock<|message|>" + atem(name="clock"), "", "", [("clock", {})]),
    Answer("glimmer", "<|message|><atem:function_calls> no", "<atem:function_calls> no"),
]  # fmt: skip


def test_every_parser_is_tested() -> None:
    assert {answer.parser for answer in ANSWERS} == set(PARSERS)


@pytest.mark.parametrize("answer", ANSWERS, ids=lambda answer: answer.parser)
def test_answers(answer: Answer) -> None:
    for pieces in cuts(answer.text):
        content, thinking, calls, indexes = read(make(answer.parser, answer), pieces)
        assert (content, thinking) == (answer.content, answer.thinking), pieces
        assert calls == answer.calls, pieces
        assert indexes == list(range(len(calls)))


ERRORS = [
    ("qwen3", json_call("{city}"), "failed to parse JSON: invalid character 'c' looking for beginning of object key string"),
    ("qwen3", json_call("[1]"), "failed to parse JSON: Value looks like object, but can't find closing '}' symbol"),
    ("qwen3", "<tool_call>{}</tool_call>", "empty function name"),
    ("qwen3", '<tool_call>{"name": 5}</tool_call>', "failed to parse JSON: json: cannot unmarshal number into Go struct field .name of type string"),
    ("qwen3-vl-instruct", "<tool_call>[1]</tool_call>", "json: cannot unmarshal array into Go value of type api.ToolCallFunction"),
    ("qwen3-vl-instruct", "<tool_call>{</tool_call>", "unexpected end of JSON input"),
    ("qwen3-coder", "<tool_call>\n<function=f>\n<parameter=a>\n1\n</function>\n</tool_call>", "XML syntax error on line 5: element <parameter> closed by </function>"),
    ("qwen3-coder", "<tool_call><function=f></tool_call>", "XML syntax error on line 1: unexpected EOF"),
    ("qwen3-coder", "<tool_call>f()</tool_call>", "EOF"),
    ("ministral", "[TOOL_CALLS]f[ARGS]{}", "tool 'f' not found"),
    ("ministral", "[TOOL_CALLS]clock[ARGS]{1}", "invalid character '1' looking for beginning of object key string"),
    ("harmony", "<|channel|>commentary to=functions.f<|message|>{broken", "error parsing tool call: raw='{broken', err=invalid character 'b' looking for beginning of object key string"),
    ("harmony", "<|channel|>commentary to=functions.f<|message|>", "error parsing tool call: raw='', err=unexpected end of JSON input"),
    ("glm-ocr", "<tool_call></tool_call>", "empty function name"),
    ("glm-ocr", f"<tool_call>{W}<arg_key>city</arg_key><arg_value>Ro", "incomplete GLM tool call: XML syntax error on line 1: element <arg_value> closed by </tool_call>"),
    ("glm-ocr", f"<tool_call>{W}<arg_key>days</arg_key><arg_value>1</arg_value></tool_", f'incomplete GLM tool call: required argument "city" is missing for tool "{W}"'),
    ("glm-ocr", "<tool_call>f", 'incomplete GLM tool call: tool "f" is not declared'),
    ("laguna", "<tool_call>{broken}</tool_call>", "failed to parse Laguna JSON tool call: invalid character 'b' looking for beginning of object key string"),
    ("laguna", "<tool_call>clock{broken}</tool_call>", "failed to parse Laguna JSON tool call arguments: invalid character 'b' looking for beginning of object key string"),
    ("glimmer", " to=clock<|message|>text<|eot|>", "parse Glimmer call to clock: missing ATEM function_calls wrapper"),
    ("glimmer", " to=clock<|message|>" + atem(name=W), f'Glimmer recipient "clock" does not match ATEM invoke "{W}"'),
]  # fmt: skip


@pytest.mark.parametrize(("name", "text", "message"), ERRORS)
def test_broken_calls_are_errors(name: str, text: str, message: str) -> None:
    for pieces in cuts(text):
        with pytest.raises(ParseError) as refused:
            read(make(name), pieces)
        assert refused.value.message == message
        assert refused.value.status == 500


PIECES = [
    *(" ", "\n", "a", "Rome is ", "<", ">", "{", "}", "[", '"', "'", ",", "é", "｜", "to=clock", "thought\n"),
    *('{"name": "clock", "arguments": {}}', "{}", "clock()", "call:clock{}", "<function=clock>", "</function>"),
    *("<parameter=a>", "</parameter>", "<think>", "</think>", "<tool_call>", "</tool_call>", "\n```json\n", "\n```"),
    *("<atem:function_calls>", "</atem:function_calls>", "<user>", "</user>", "<|constrain|>", "assistant"),
]  # fmt: skip


@pytest.mark.parametrize("name", PARSERS)
def test_no_cut_changes_an_answer(name: str) -> None:
    """Random texts of the family's own tags and of others', cut at random."""
    rng = random.Random(name)
    pool = [*PIECES, *3 * list(PARSERS[name].tags)]
    for _ in range(150):
        text = "".join(rng.choices(pool, k=rng.randint(1, 14)))
        think = rng.choice([None, True, False])
        whole = outcome(name, [text], think)
        for size in (1, 3, 11):
            pieces = [text[at : at + size] for at in range(0, len(text), size)]
            assert outcome(name, pieces, think) == whole, (text, pieces)


def outcome(name: str, pieces: list[str], think: bool | None) -> object:
    """What comes of a text; of one that ends in an error, that error."""
    try:
        return read(make(name, Answer(name, "", think=think)), pieces)
    except ParseError as error:
        return error.message


@pytest.mark.parametrize("name", PARSERS)
def test_text_is_sent_at_once(name: str) -> None:
    """Nothing that cannot become a tag waits, though more may follow."""
    parser = make(name, Answer(name, "", think=False))
    parser.skip_thinking()
    assert parser.feed("Rome is warm").content == "Rome is warm"
    assert parser.feed(", and 3").content == ", and 3"


@pytest.mark.parametrize("name", PARSERS)
def test_thinking_can_be_skipped(name: str) -> None:
    for think in (True, None):
        parser = make(name, Answer(name, "", think=think))
        parser.skip_thinking()
        content, thinking, calls, _ = read(parser, ['["Rome', '"]'])
        assert (content, thinking, calls) == ('["Rome"]', "", [])


def test_harmony_names_are_identifiers() -> None:
    names = ["a-b c.d", "a_b_c_d", "9lives", "browser.search", "日本$", "!?"]
    tools = [{"type": "function", "function": {"name": name}} for name in names]
    shown = [tool["function"]["name"] for tool in PARSERS["harmony"].declared(tools)]
    assert shown == ["a_b_c_d", "a_b_c_d_2", "_9lives", "browser.search", "日本$", "unnamed"]
    for name, called in zip(names, shown, strict=True):
        parser = PARSERS["harmony"](Request(read_all(tools)))
        text = f"<|channel|>commentary to=functions.{called}<|message|>{{}}"
        assert read(parser, [text])[2] == [(name, {})]


def test_long_arguments_cost_no_more_each_than_short_ones() -> None:
    """A file of a megabyte in a call: no piece makes the parser read the whole again."""
    body = "x" * 997
    for name, begin, end in (
        ("qwen3", '<tool_call>{"name": "clock", "arguments": {"a": "', '"}}</tool_call>'),
        ("ministral", '[TOOL_CALLS]clock[ARGS]{"a": "', '"}'),
    ):
        parser = make(name)
        parsed = read(parser, [begin, *[body] * 1000, end])
        assert parsed[2] == [("clock", {"a": body * 1000})]
