"""Modelfile grammar and the request it becomes, as a table."""

from __future__ import annotations

import codecs
from pathlib import Path
from typing import Any

import pytest

from lhama.daemon.cli.createbody import create_body
from lhama.daemon.modelfile import Command, ModelfileError, parse

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
    "old line ends": ("FROM foo\rSYSTEM hi\r", [("from", "foo"), ("system", "hi")]),
    "line ends inside of quotes stay": (
        'FROM foo\r\nSYSTEM """a  \r\n\tb\r\n"""',
        [("from", "foo"), ("system", "a  \r\n\tb\r\n")],
    ),
    "space before a line's end inside of quotes stays": (
        'FROM foo\nSYSTEM """a  \n  b  """',
        [("from", "foo"), ("system", "a  \n  b  ")],
    ),
    "a quote that goes on behind its end": (
        'FROM foo\nSYSTEM "a" b\nc"',
        [("from", "foo"), ("system", 'a" b\nc')],
    ),
    "tabs": ("FROM\tfoo\nPARAMETER\tstop\ta\tb", [("from", "foo"), ("parameter", "stop", "a\tb")]),
    "what cannot be printed is dropped": (
        "FROM f\x07o\u00a0o\u200b\n",
        [("from", "foo")],
    ),
    "an empty value": ("FROM \nSYSTEM x", [("from", ""), ("system", "x")]),
    "a role is no key of the next command": (
        "FROM foo\nMESSAGE user a\nSYSTEM b",
        [("from", "foo"), ("message", "user", "a"), ("system", "b")],
    ),
    "bytes that are no text": (b"FROM f\xffo", [("from", "f\ufffdo")]),
    "no statement, many comments": ("#\n# FROM x\n#FROM y\nFROM z", [("from", "z")]),
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
    "role with capitals": (
        "FROM x\nMESSAGE User hi",
        '(line 2): message role must be one of "system", "user", or "assistant"',
    ),
    "two spaces before a role": (
        "FROM x\nMESSAGE  user hi",
        '(line 2): message role must be one of "system", "user", or "assistant"',
    ),
    "open triple quote": ('FROM x\nSYSTEM """hi\n"', "unexpected EOF"),
    "open quote": ('FROM "x', "unexpected EOF"),
    "no value": ("FROM", "unexpected EOF"),
    "no value in a line": ("FROM x\nSYSTEM\nPARSER y", f"(line 3): command must be one of {ORDER}"),
    "a name with a digit": ("FROM x\nSYST3M y", f"(line 2): command must be one of {ORDER}"),
    "no parameter value": ("FROM x\nPARAMETER top_k", "unexpected EOF"),
    "no parameter value in a line": ("FROM x\nPARAMETER top_k\n", "unexpected EOF: top_k"),
    "an equals sign": ("FROM x\nPARAMETER top_k=5", "unexpected EOF: top_k"),
    "a role with a colon": ("FROM x\nMESSAGE user: hi", "unexpected EOF: user"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_errors(case: str) -> None:
    source, message = ERRORS[case]
    with pytest.raises(ModelfileError) as caught:
        parse(source)
    assert str(caught.value) == message
    assert caught.value.status == 400


W, P = Path("/w.gguf"), Path("/p.gguf")
FILES = {"./w.gguf": [W], "./p.gguf": [P]}

REQUESTS: dict[str, tuple[str, dict[str, Any]]] = {
    "a model": ("FROM smollm2", {"from": "smollm2"}),
    "files add up": (
        "FROM ./w.gguf\nFROM ./p.gguf",
        {"files": [W, P]},
    ),
    "adapter and draft": (
        "FROM base\nADAPTER ./w.gguf\nDRAFT ./p.gguf",
        {"from": "base", "adapters": [W], "draft_files": [P]},
    ),
    "the last adapter stays": (
        "FROM base\nADAPTER ./w.gguf\nADAPTER ./p.gguf",
        {"from": "base", "adapters": [P]},
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
    made = create_body(parse(source), FILES.get)
    assert {**made.body, **made.files} == body
    assert made.warnings == []


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("PARAMETER bananas 3", "unknown parameter 'bananas'"),
        ("PARAMETER num_ctx many", "invalid int value [many]"),
        ("PARAMETER num_ctx 1_000", "invalid int value [1_000]"),
        ("PARAMETER seed 9223372036854775808", "invalid int value [9223372036854775808]"),
        ("PARAMETER top_p 1e99", "invalid float value [1e99]"),
        ("PARAMETER top_p nan", "invalid float value [nan]"),
        ("PARAMETER  top_k 5", "unknown parameter ''"),
        ("PARAMETER temperature hot", "invalid float value [hot]"),
        ("PARAMETER use_mmap maybe", "invalid bool value [maybe]"),
        ("REQUIRES soon", "requires must be a valid semver (e.g. 0.14.0)"),
        ("ADAPTER ./gone.gguf", "(line 2): no such file: ./gone.gguf"),
    ],
)
def test_bad_requests(line: str, message: str) -> None:
    with pytest.raises(ModelfileError) as caught:
        create_body(parse(f"FROM m\n{line}"), FILES.get)
    assert str(caught.value) == message


def test_deprecated_parameters_are_left_out_with_a_warning() -> None:
    made = create_body(parse("FROM m\nPARAMETER mirostat 1"), FILES.get)
    assert made.body == {"from": "m"}
    assert made.warnings == ["parameter mirostat is deprecated"]


@pytest.mark.parametrize(
    ("text", "number"), [("0.1", 0.1), ("0.123456789", 0.12345679), ("1e-7", 1e-7), ("3", 3.0)]
)
def test_numbers_are_those_of_32_bits(text: str, number: float) -> None:
    made = create_body(parse(f"FROM m\nPARAMETER temperature {text}"), FILES.get)
    assert made.body["parameters"] == {"temperature": number}


def test_a_draft_is_not_the_model_itself() -> None:
    with pytest.raises(
        ModelfileError, match="DRAFT must not reference the same local path as FROM"
    ):
        create_body(parse("FROM ./w.gguf\nDRAFT ./w.gguf"), FILES.get)


def test_commands_know_their_lines() -> None:
    assert parse("\n\nFROM m\nSYSTEM s") == (
        Command("from", "m", line=3),
        Command("system", "s", line=4),
    )
