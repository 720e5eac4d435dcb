from __future__ import annotations

import time
from datetime import date, timedelta
from typing import Any

import pytest

from lhama.daemon.errors import LhamaError
from lhama.daemon.prompt import goparse, govalues
from lhama.daemon.prompt.gofunctions import RenderBudgetError
from lhama.daemon.prompt.gotemplate import compile_template
from lhama.daemon.prompt.jsontext import Struct, marshal
from lhama.daemon.wire.messages import Message, ToolCall

CITY = {"type": ["string"], "description": "<City>", "enum": ["Paris"]}
WHEN = {"anyOf": [{"type": "string"}, {"type": "integer"}], "format": "lost"}
TOOL = {
    "function": {
        "parameters": {
            "properties": {"when": WHEN, "city": CITY},
            "required": ["city"],
            "type": "object",
        },
        "name": "get_weather",
    },
    "type": "function",
}


def execute(text: str, **values: Any) -> str:
    return compile_template(text).execute({"Response": "", **values})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{{ .Tools }}", "[{tool}]"),
        ("{{ range .Tools }}{{ . }}{{ end }}", "{tool}"),
        ("{{ json .Tools }}", "[{tool}]"),
        ("{{ len .Tools }}{{ (index .Tools 0).Function.Name }}", "1get_weather"),
        ("{{ range $i, $t := .Tools }}{{ $i }}{{ .Type }}{{ end }}", "0function"),
        (
            "{{ range .Tools }}{{ range $n, $p := .Function.Parameters.Properties }}"
            "{{ $n }}:{{ $p | toTypeScriptType }}:{{ $p.Type }}:{{ $p.Description }} {{ end }}{{ end }}",
            "city:string:string:<City> when:string | number:: ",
        ),
        ("{{ range .Tools }}{{ .Function.Parameters.Required }}{{ end }}", "[city]"),
        ("{{ range .Tools }}{{ json .Function.Parameters.Required }}{{ end }}", '["city"]'),
    ],
)
def test_tools(text: str, expected: str) -> None:
    tool = (
        '{"type":"function","function":{"name":"get_weather","description":"",'
        '"parameters":{"type":"object",'
        '"required":["city"],"properties":{"city":{"type":"string","description":'
        '"\\u003cCity\\u003e","enum":["Paris"]},"when":{"anyOf":[{"type":"string"},'
        '{"type":"integer"}]}}}}}'
    )
    expected = expected.replace("{tool}", tool)
    assert execute(text + "{{/* .Messages */}}", Tools=govalues.tools([TOOL])) == expected


def test_no_tools_are_false_and_absent_properties_null() -> None:
    assert execute("{{ if .Tools }}yes{{ else }}no{{ end }}", Tools=govalues.tools([])) == "no"
    (wire,) = govalues.tools([{"type": "function", "function": {"name": "f"}}])
    assert str(wire) == (
        '{"type":"function","function":{"name":"f","description":"",'
        '"parameters":{"type":"","properties":null}}}'
    )


def test_calls_and_arguments() -> None:
    call = ToolCall("f", {"b": 1.0, "a": "<"}, index=3, id="call_1")
    turns = govalues.messages([Message("assistant", tool_calls=[call])])
    text = (
        "{{ range .Messages }}{{ range .ToolCalls }}{{ .ID }} {{ .Function.Index }} "
        "{{ .Function.Arguments }} {{ json .Function.Arguments }} "
        "{{ range $k, $v := .Function.Arguments }}{{ $k }}={{ $v }};{{ end }} "
        "{{ index .Function.Arguments `a` }}{{ .Function.Arguments.a }}{{ end }}{{ end }}"
    )
    arguments = '{"a":"\\u003c","b":1}'
    assert execute(text, Messages=turns) == f"call_1 3 {arguments} {arguments} a=<;b=1; <<"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{{- range $i, $m := .M }}{{ if eq $i 0 }}first {{ end }}{{ . }}{{ end }}", "first abc"),
        (
            "{{ range $i, $_ := .M }}{{ if eq (len (slice $.M $i)) 1 }}last{{ end }}{{ end }}",
            "last",
        ),
        ("{{ range .M }}{{ if eq . `b` }}{{ continue }}{{ end }}{{ . }}{{ end }}", "ac"),
        ("{{ $s := `` }}{{ range .M }}{{ $s = print $s . }}{{ end }}{{ $s }}", "abc"),
        ("{{ range (slice .M 1) -}}  x{{ . }} {{ else }} none{{ end }}", "xb xc "),
        ("{{ with .None }}a{{ else }}b{{ end }}{{ .None }}", "b<no value>"),
        ('{{ define "t" -}} [{{ . }}] {{- end }}{{ template "t" .A }}', "[x]"),
        ('{{ block "t" .A -}} [{{ . }}] {{- end }}', "[x]"),
        ('{{ printf "%s-%03d|%-4s|%q" .A 7 "b" "c" }}', 'x-007|b   |"c"'),
        ("{{ and .A (not .None) (or .None 1) }}", "1"),
    ],
)
def test_language(text: str, expected: str) -> None:
    assert execute(text + "{{/**/}}{{ .Response }}", M=["a", "b", "c"], A="x") == expected


def test_dates() -> None:
    today = date.today()
    text = execute("{{ currentDate }} {{ yesterdayDate }}{{ .Response }}")
    assert text in {f"{d} {d - timedelta(1)}" for d in (today, today + timedelta(1))}


@pytest.mark.cve("2024-34359")
@pytest.mark.parametrize(
    "text",
    [
        "{{ range 99999 }}" + "{{ if true }}{{ end }}" * 100 + "{{ end }}",
        "{{ range 1000000000 }}{{ end }}",
        "{{ range 1000000 }}" + "x" * 1000 + "{{ end }}",
        '{{ printf "%1000000000d" 3 }}',
        '{{ printf "%*d" 1000000000 3 }}',
        '{{ printf "%[1]*d" 1000000000 3 }}',
        '{{ printf "%.1000000000f" 3.0 }}',
        "{{ $x := `aaaaaaaaaaaa` }}{{ range 60 }}{{ $x = print $x $x }}{{ end }}{{ $x }}",
        '{{ $x := `aaaaaaaaaaaa` }}{{ range 60 }}{{ $x = printf "%s%s" $x $x }}{{ end }}',
        "{{ $x := `aaaaaaaaaaaa` }}{{ range 60 }}{{ $x = json (print $x $x) }}{{ end }}",
        '{{ define "a" }}{{ template "a" . }}{{ end }}{{ template "a" . }}',
        "".join(
            f'{{{{ define "t{i}" }}}}{{{{ template "t{i + 1}" }}}}{{{{ template "t{i + 1}" }}}}{{{{ end }}}}'
            for i in range(40)
        )
        + '{{ define "t40" }}{{ end }}{{ template "t0" }}',
        '{{ block "b" . }}{{ template "b" . }}{{ template "b" . }}{{ end }}',
    ],
)
def test_budgets(text: str) -> None:
    template = compile_template(text)
    start = time.thread_time()
    with pytest.raises(RenderBudgetError) as stopped:
        template.execute({})
    assert time.thread_time() - start < 1
    assert stopped.value.status == 400
    assert stopped.value.message.startswith("chat template stopped: ")


@pytest.mark.cve("2024-34359")
@pytest.mark.parametrize("number", ["0" * 60 + "x", "0" * 100_000 + "x", "0_7" * 9999 + "+1x"])
def test_a_number_without_end_is_read_once(number: str) -> None:
    """And not in all the ways in which it can be cut, which takes hours for sixty digits."""
    with pytest.raises(goparse.TemplateTextError, match="bad number syntax"):
        goparse.parse(f"{{{{ {number} }}}}")


def test_the_next_rendering_has_its_own_budget() -> None:
    with pytest.raises(RenderBudgetError):
        execute("{{ range 1000000000 }}{{ end }}")
    assert execute("{{ range 3 }}{{ . }}{{ end }}") == "012"


@pytest.mark.cve("2024-34359")
@pytest.mark.parametrize(
    "text",
    ["{{ .A.upper }}", "{{ .A.__class__ }}", "{{ .M.clear }}", "{{ index .M 7 }}", "{{ .A.B.C }}"],
)
def test_python_is_out_of_reach(text: str) -> None:
    items = ["a"]
    with pytest.raises(LhamaError, match="^template error: "):
        execute(text + "{{ .Response }}", A="x", M=items)
    assert items == ["a"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{{ .Prompt ", "template: :1: unclosed action"),
        ("a\n{{ if .X }}", "template: :2: unexpected EOF"),
        ("{{ foo }}", 'template: :1: function "foo" not defined'),
        ("\n\n{{ end }}", "template: :3: unexpected {{end}}"),
        ("{{ $x }}", 'template: :1: undefined variable "$x"'),
        ("{{ .A) }}", "template: :1: unexpected right paren"),
        (
            "{{ range .A }}{{ else }}{{ else }}{{ end }}",
            "template: :1: expected end; found {{else}}",
        ),
        ("{{ if .A }}{{ end }}{{ else }}", "template: :1: unexpected {{else}}"),
        ("{{ break }}", "template: :1: {{break}} outside {{range}}"),
        ("{{ define }}", 'template: :1: unexpected "}}" in define clause'),
        ("{{ template x }}", 'template: :1: unexpected "x" in template clause'),
        ('{{ block "x" }}{{ end }}', "template: :1: missing value for block clause"),
        ("{{ if .A }}{{ else if }}{{ end }}", "template: :1: missing value for if"),
        ("{{}}", "template: :1: missing value for command"),
        ("{{- range }}", "template: :1: missing value for range"),
        ("{{ x := 1 }}", 'template: :1: function "x" not defined'),
        ("{{ a & b }}", 'template: :1: function "a" not defined'),
        ("{{ !x }}", 'template: :1: unexpected "!" in command'),
        ("{{ if ! .A }}x{{ end }}", 'template: :1: unexpected "!" in if'),
        ("{{ .A || .B }}", 'template: :1: unexpected "|" in command'),
        ("é\n{{ if .A == .B }}", 'template: :2: unexpected "=" in operand'),
        ("{{ .A, .B }}", 'template: :1: unexpected "," in operand'),
        ("{{ .Prompt }", 'template: :1: unexpected "}" in operand'),
        ("{{.Prompt}", "template: :1: bad character U+007D '}'"),
        ("{{ .A[0] }}", "template: :1: bad character U+005B '['"),
        ("{{-x}}", 'template: :1: bad number syntax: "-x"'),
        ("{{ .A + 1 }}", 'template: :1: illegal number syntax: "+"'),
        ("{{ if .A }}{{ end x }}", 'template: :1: unexpected "x" in end'),
        ("{{ {{ .A }} }}", 'template: :1: unexpected "{" in command'),
        ("{{ x.y|default('') }}", 'template: :1: function "x" not defined'),
        ("{{ : }}", "template: :1: expected :="),
        ("{{ lhamaTick }}", 'template: :1: function "lhamaTick" not defined'),
        ("{{if 1}}" * 200 + "{{end}}" * 200, "template: :1: template nesting limit exceeded"),
        ("x" * 200_000, "template: :1: longer than 131072 bytes"),
    ],
)
def test_parse_errors(text: str, message: str) -> None:
    with pytest.raises(goparse.TemplateTextError) as failed:
        compile_template(text)
    assert failed.value.message == message


def test_identifiers() -> None:
    text = (
        "{{ range $m := .Messages }}{{ $m.Role }}{{ if .Tools }}a{{ else }}{{ .B.C }}{{ end }}{{ end }}"
        '{{ define "x" }}{{ .Suffix }}{{ end }}plain .Nothing'
    )
    assert goparse.identifiers(text) == {"messages", "role", "tools", "b", "c", "suffix"}


def test_fifty_messages_take_under_5_ms() -> None:
    text = "{{- range .Messages }}<|im_start|>{{ .Role }}\n{{ .Content }}<|im_end|>\n{{ end }}"
    turns = govalues.messages([Message("user", "hello " * 20)] * 50)
    template = compile_template(text)
    best = 1.0
    for _ in range(10):
        start = time.thread_time()
        template.execute({"Messages": turns})
        best = min(best, time.thread_time() - start)
    assert best < 0.005


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"b": 1, "a": [True, None]}, '{"a":[true,null],"b":1}'),
        (Struct(b=1, a=2), '{"b":1,"a":2}'),
        ('<&>\u2028é\x01\n"', '"\\u003c\\u0026\\u003e\\u2028é\\u0001\\n\\""'),
        (1.0, "1"),
        (0.1, "0.1"),
        (-2.5e-7, "-2.5e-7"),
        (1e-6, "0.000001"),
        (1e20, "100000000000000000000"),
        (1e21, "1e+21"),
        (2**63, "9223372036854776000"),
        (12345678901234567890, "12345678901234567000"),
    ],
)
def test_json(value: Any, text: str) -> None:
    assert marshal(value) == text


def test_json_refuses_nan() -> None:
    with pytest.raises(ValueError, match="unsupported"):
        marshal(float("nan"))
