"""Jinja chat templates, with the means that published ones use, in short form."""

from __future__ import annotations

import time
from typing import Any

import pytest

from lhama.daemon.errors import BadRequest
from lhama.daemon.prompt.jinja import JinjaTemplate
from lhama.daemon.wire.messages import Message, ToolCall

TURNS = [Message("user", "a"), Message("assistant", "b"), Message("user", "c")]
SYSTEM = Message("system", "S")

LLAMA3 = (
    "{{- bos_token }}{%- for m in messages %}{{- '<|start_header_id|>' + m['role'] + "
    "'<|end_header_id|>\\n\\n' + m['content'] | trim + '<|eot_id|>' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}{% for m in messages %}"
    "{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate') }}{% endif %}"
    "{% if m['role'] == 'assistant' %}{% set role = 'model' %}{% else %}{% set role = m['role'] %}"
    "{% endif %}{{ '<start_of_turn>' + role + '\\n' + m['content'] | trim + '<end_of_turn>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}"
)
QWEN = (
    "{%- if tools %}\n    {{- '<tools>' }}\n    {%- for tool in tools %}\n"
    "        {{- '\\n' + (tool | tojson) }}\n    {%- endfor %}\n    {{- '</tools>' }}\n{%- endif %}"
    "{%- set ns = namespace(last=-1) %}{%- for m in messages[::-1] %}"
    "{%- if ns.last < 0 and m.role == 'user' %}{%- set ns.last = loop.revindex0 %}{%- break %}"
    "{%- endif %}{%- endfor %}{%- for m in messages %}{%- set content = m.content %}"
    "{%- if '</think>' in content %}{%- set content = content.split('</think>')[-1].lstrip('\\n') %}"
    "{%- endif %}[{{ m.role }}{{ '*' if loop.index0 == ns.last }} {{ content }}"
    "{%- if m.tool_calls %}{%- for call in m.tool_calls %}{%- set f = call.function %}"
    "<tool_call>{{ f.name }} {{ f.arguments | tojson }}</tool_call>{%- endfor %}{%- endif %}]"
    "{%- endfor %}{%- if enable_thinking is defined and enable_thinking is false %}"
    "{{- '<think>\\n\\n</think>' }}{%- endif %}"
)


@pytest.mark.parametrize(
    ("template", "messages", "more", "expected"),
    [
        (
            LLAMA3,
            [SYSTEM, Message("user", " a ")],
            {"bos": "<s>"},
            "<s><|start_header_id|>system<|end_header_id|>\n\nS<|eot_id|>"
            "<|start_header_id|>user<|end_header_id|>\n\na<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\n",
        ),
        (
            GEMMA,
            TURNS,
            {"bos": "<bos>"},
            "<bos><start_of_turn>user\na<end_of_turn>\n<start_of_turn>model\nb<end_of_turn>\n"
            "<start_of_turn>user\nc<end_of_turn>\n<start_of_turn>model\n",
        ),
        (
            GEMMA,
            [SYSTEM, Message("user", "a"), Message("user", "b")],
            {},
            "<start_of_turn>user\nS\n\na\n\nb<end_of_turn>\n<start_of_turn>model\n",
        ),
        (QWEN, TURNS, {}, "[user a][assistant b][user* c]"),
        (QWEN, TURNS, {"think": False}, "[user a][assistant b][user* c]<think>\n\n</think>"),
        (QWEN, TURNS, {"think": True}, "[user a][assistant b][user* c]"),
        (
            QWEN,
            [
                Message("user", "a"),
                Message(
                    "assistant", "<think>x</think>\n\ny", tool_calls=[ToolCall("f", {"z": "<é>"})]
                ),
                Message("tool", "r"),
            ],
            {"tools": [{"type": "function", "function": {"name": "f"}}]},
            '<tools>\n{"type": "function", "function": {"name": "f"}}</tools>'
            '[user* a][assistant y<tool_call>f {"z": "<é>"}</tool_call>][tool r]',
        ),
        (QWEN, [*TURNS, Message("assistant", "Sure,")], {}, "[user a][assistant b][user* c]Sure,"),
        ("{{ messages | length }}{{ tools is none }}", TURNS, {}, "3True"),
        ("{{ reasoning_effort }}{{ enable_thinking }}", TURNS, {"think": "high"}, "highTrue"),
        ("{% generation -%} x {%- endgeneration %}y", TURNS, {}, "xy"),
        ("{{ {'b': [1, none], 'a': true} | tojson }}", TURNS, {}, '{"b": [1, null], "a": true}'),
        ("{{ strftime_now('%Y') | length }}", TURNS, {}, "4"),
        (
            "{% for m in messages if m.role == 'user' %}{{ loop.last }}{% endfor %}",
            TURNS,
            {},
            "FalseTrue",
        ),
        (
            "{% macro f(x, y='d') %}{{ x }}{{ y }}{% endmacro %}{{ f(messages[-1].content) }}",
            TURNS,
            {},
            "cd",
        ),
        ("{{ messages | map(attribute='role') | join(',') }}", TURNS, {}, "user,assistant,user"),
        ("  {% if true %}\n  a\n  {% endif %}\n", TURNS, {}, "  a\n"),
    ],
)
def test_render(
    template: str, messages: list[Message], more: dict[str, Any], expected: str
) -> None:
    tools = more.pop("tools", ()) if "tools" in more else ()
    assert JinjaTemplate(template).render(messages, tools, **more) == expected


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ foo", "does not parse"),
        ("{% if %}", "does not parse"),
        ("{{ messages[0].a.b }}", "failed"),
        ("{{ raise_exception('Only the template knows') }}", "Only the template knows"),
        ("{% include 'x' %}", "failed"),
        ("{{ messages.__class__.__mro__ }}", "failed"),
        ("{{ tojson(messages) }}", "failed"),
        ("x" * 300_000, "longer"),
    ],
)
def test_failures(template: str, message: str) -> None:
    with pytest.raises(BadRequest, match=message):
        JinjaTemplate(template).render(TURNS)


@pytest.mark.cve("2024-34359")
@pytest.mark.parametrize(
    "template",
    [
        "{% for i in range(90000) %}{% for j in range(90000) %}x{% endfor %}{% endfor %}",
        "{{ 'a' * 2000000000 }}",
        "{% macro f() %}{{ f() }}{{ f() }}{% endmacro %}{{ f() }}",
        "{% for i in range(10000000000) %}{% endfor %}",
    ],
)
def test_budgets(template: str) -> None:
    compiled = JinjaTemplate(template)
    start = time.thread_time()
    with pytest.raises(BadRequest, match="chat template"):
        compiled.render(TURNS)
    assert time.thread_time() - start < 1
