"""Modelfile grammar and the request it becomes, as a table."""

from __future__ import annotations

import codecs
from typing import Any

import pytest

from lhama.daemon.modelfile import Command, ModelfileError, create_request, parse

ORDER = (
    '"from", "license", "template", "system", "adapter", "draft", "renderer", "parser", '
    '"parameter", "message", or "requires"'
)


def simple(source: str | bytes) -> list[tuple[str, ...]]:
    return [(c.name, c.key, c.value) if c.key else (c.name, c.value) for c in parse(source)]


GRAMMAR: dict[str, tuple[str | bytes, list[tuple[str, ...]]]] = {
    "plain": ("FROM foo", [("from", "foo")]),
    "any case, any indent": ("  fRoM   foo bar  \n", [("from", "foo bar")]),
    "comments at line start only": (
        "# one\nFROM foo # stays\n  # two\n",
        [("from", "foo # stays")],
    ),
    "windows line ends": (
        "FROM foo\r\nSYSTEM hi\r\n",
        [("from", "foo"), ("system", "hi")],
    ),
    "double quotes": ('FROM foo\nSYSTEM "a b "', [("from", "foo"), ("system", "a b ")]),
    "empty in quotes": ('FROM foo\nSYSTEM ""', [("from", "foo"), ("system", "")]),
    "quotes within quotes": (
        'FROM foo\nSYSTEM "say "hi" now"',
        [("from", "foo"), ("system", 'say "hi" now')],
    ),
    "double quotes over lines": (
        'FROM foo\nTEMPLATE "{{ .Prompt }}\n  next\n"',
        [("from", "foo"), ("template", "{{ .Prompt }}\n  next\n")],
    ),
    "triple quotes over lines keep space and comments": (
        'FROM foo\nSYSTEM """\n# no comment\n  FROM nothing\n"""\nPARSER x',
        [("from", "foo"), ("system", "\n# no comment\n  FROM nothing\n"), ("parser", "x")],
    ),
    "triple quotes, one line": (
        'FROM foo\nSYSTEM """a "quoted" b"""  ',
        [("from", "foo"), ("system", 'a "quoted" b')],
    ),
    "a lone triple quote inside does not close": (
        'FROM foo\nSYSTEM """a """ b\nc"""',
        [("from", "foo"), ("system", 'a """ b\nc')],
    ),
    "parameters": (
        'FROM foo\nPARAMETER stop "<|end|> "\nparameter top_k 5',
        [("from", "foo"), ("parameter", "stop", "<|end|> "), ("parameter", "top_k", "5")],
    ),
    "messages": (
        'FROM foo\nMESSAGE user hi: there\nMESSAGE assistant """\nyo\n"""',
        [("from", "foo"), ("message", "user", "hi: there"), ("message", "assistant", "\nyo\n")],
    ),
    "utf-8 mark": (codecs.BOM_UTF8 + "FROM é".encode(), [("from", "é")]),
    "utf-16 le": (codecs.BOM_UTF16_LE + "FROM é".encode("utf-16-le"), [("from", "é")]),
    "utf-16 be": (codecs.BOM_UTF16_BE + "FROM é".encode("utf-16-be"), [("from", "é")]),
    "several FROM": ("FROM a\nFROM b", [("from", "a"), ("from", "b")]),
}


@pytest.mark.parametrize("case", GRAMMAR)
def test_grammar(case: str) -> None:
    source, commands = GRAMMAR[case]
    assert simple(source) == commands


ERRORS = {
    "empty": ("", "no FROM line"),
    "no from": ("SYSTEM hi", "no FROM line"),
    "bad command": ("FROM x\n\nFORM y", f"(line 3): command must be one of {ORDER}"),
    "bad command after a long value": (
        'FROM x\nSYSTEM """\n\n"""\nX y',
        f"(line 5): command must be one of {ORDER}",
    ),
    "bad role": (
        "FROM x\nMESSAGE robot hi",
        '(line 2): message role must be one of "system", "user", or "assistant"',
    ),
    "open triple quote": (
        'FROM x\nSYSTEM """hi\n"',
        "unexpected EOF: the quote opened in line 2 stays open",
    ),
    "open quote": ('FROM "x', "unexpected EOF: the quote opened in line 1 stays open"),
    "no value": ("FROM", "unexpected EOF: FROM has no value"),
    "no parameter value": (
        "FROM x\nPARAMETER top_k",
        "unexpected EOF: PARAMETER top_k has no value",
    ),
}


@pytest.mark.parametrize("case", ERRORS)
def test_errors(case: str) -> None:
    source, message = ERRORS[case]
    with pytest.raises(ModelfileError) as caught:
        parse(source)
    assert str(caught.value) == message
    assert caught.value.status == 400


FILES = {"./w.gguf": {"w.gguf": "sha256:1"}, "./p.gguf": {"p.gguf": "sha256:2"}}

REQUESTS: dict[str, tuple[str, dict[str, Any]]] = {
    "a model": ("FROM smollm2", {"from": "smollm2"}),
    "files add up": (
        "FROM ./w.gguf\nFROM ./p.gguf",
        {"files": {"w.gguf": "sha256:1", "p.gguf": "sha256:2"}},
    ),
    "adapter and draft": (
        "FROM base\nADAPTER ./w.gguf\nDRAFT ./p.gguf",
        {"from": "base", "adapters": {"w.gguf": "sha256:1"}, "draft_files": {"p.gguf": "sha256:2"}},
    ),
    "texts": (
        "FROM m\nTEMPLATE t\nSYSTEM s\nRENDERER r\nPARSER p\nREQUIRES v0.14.0",
        {"from": "m", "template": "t", "system": "s", "renderer": "r", "parser": "p", "requires": "0.14.0"},
    ),
    "licenses add up": ("FROM m\nLICENSE MIT\nLICENSE BSD", {"from": "m", "license": ["MIT", "BSD"]}),
    "messages": (
        "FROM m\nMESSAGE user a: b\nMESSAGE assistant c",
        {
            "from": "m",
            "messages": [{"role": "user", "content": "a: b"}, {"role": "assistant", "content": "c"}],
        },
    ),
    "parameters are typed, the last wins, stops add up": (
        "FROM m\nPARAMETER num_ctx 5\nPARAMETER num_ctx 4096\nPARAMETER temperature .5\n"
        "PARAMETER use_mmap false\nPARAMETER stop a\nPARAMETER stop b",
        {
            "from": "m",
            "parameters": {
                "num_ctx": 4096,
                "temperature": 0.5,
                "use_mmap": False,
                "stop": ["a", "b"],
            },
        },
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REQUESTS)
def test_requests(case: str) -> None:
    source, body = REQUESTS[case]
    request = create_request(parse(source), FILES.get)
    assert request.body == body
    assert request.warnings == ()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("PARAMETER bananas 3", "unknown parameter 'bananas'"),
        ("PARAMETER num_ctx many", "invalid int value [many]"),
        ("PARAMETER temperature hot", "invalid float value [hot]"),
        ("PARAMETER use_mmap maybe", "invalid bool value [maybe]"),
        ("REQUIRES soon", "requires must be a valid semver (e.g. 0.14.0)"),
        ("ADAPTER ./gone.gguf", "(line 2): no such file: ./gone.gguf"),
    ],
)
def test_bad_requests(line: str, message: str) -> None:
    with pytest.raises(ModelfileError) as caught:
        create_request(parse(f"FROM m\n{line}"), FILES.get)
    assert str(caught.value) == message


def test_deprecated_parameters_are_left_out_with_a_warning() -> None:
    request = create_request(parse("FROM m\nPARAMETER mirostat 1"), FILES.get)
    assert request.body == {"from": "m"}
    assert request.warnings == ("parameter 'mirostat' is deprecated and has no effect",)


def test_commands_know_their_lines() -> None:
    assert parse("\n\nFROM m\nSYSTEM s") == (
        Command("from", "m", line=3),
        Command("system", "s", line=4),
    )
