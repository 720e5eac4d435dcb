"""Schemas and grammars: what is read, what is refused, what a hostile one costs."""

from __future__ import annotations

import json
import threading
from typing import Any

import jsonschema
import pytest
from lhama_testing_schemas import Case, check_valid, corpus, is_prefix

from lhama.backends.reference.tokenizer import ReferenceTokenizer
from lhama.daemon.errors import RunnerFailed
from lhama.daemon.runner.grammar import Compilers, Grammar, Grammars, Masks

CORPUS = corpus()
TOKENIZER = ReferenceTokenizer()


@pytest.fixture(scope="module")
def grammars() -> Grammars:
    return Grammars(TOKENIZER)


def writes(grammar: Grammar, text: str) -> bool:
    """Whether all of ``text`` may be written, and nothing is missing at its end."""
    masks = Masks(TOKENIZER.vocab)
    stopped = False
    for byte in text.encode():
        if stopped or not allowed(masks, grammar) >> byte & 1:
            return False
        stopped = grammar.accept(byte)
    return stopped or bool(allowed(masks, grammar) >> min(TOKENIZER.end_tokens) & 1)


def allowed(masks: Masks, grammar: Grammar) -> int:
    (mask,) = masks.compute([grammar])
    assert isinstance(mask, bytes)
    return int.from_bytes(mask, "little")


def refusal(grammars: Grammars, schema: Any) -> str:
    with pytest.raises(RunnerFailed) as refused:
        grammars.make(json.dumps(schema))
    error = refused.value
    assert (error.status, error.kind) == (400, "invalid_request_error")
    beginning = "Field 'json_schema': \"json_schema\": JSON schema conversion failed:\n"
    assert error.message.startswith(beginning)
    return error.message.removeprefix(beginning)


# ------------------------------------------------------------------------------------ the corpus


def test_there_are_enough_of_them() -> None:
    assert len(CORPUS) >= 60
    assert len({case.name for case in CORPUS}) == len(CORPUS)


@pytest.mark.parametrize("case", CORPUS, ids=lambda case: case.name)
def test_what_a_schema_lets_be_written(case: Case, grammars: Grammars) -> None:
    for text in case.accepts:
        check_valid(case, text)  # of the test's own examples
        assert writes(grammars.make(case.text), text), text
    for text in case.refuses:
        assert not writes(grammars.make(case.text), text), text


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("{}", True),
        ('{"a": 1.5e10,\n  "b":[true , null ]}', True),
        ('{"a":{"b":[[],{}]}}', True),
        ("[]", False),
        ('"x"', False),
        ('{"a" :1}', False),
        ("{'a':1}", False),
        ('{"a":1,}', False),
        ('{"a":01}', False),
        ("{} ", False),
    ],
)
def test_json_without_a_schema(text: str, right: bool, grammars: Grammars) -> None:
    """Ollama's grammar for ``json``: an object, white space in its places."""
    assert writes(grammars.make("json"), text) is right


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ('{"a":1,"b":2}', True),
        ('{\n  "a": 1,\n  "b": 2\n}', True),
        ('{ "a" : 1, "b" : 2 }', True),
        ('{"a":1 ,"b":2}', False),
        ('{"a":1\n,"b":2}', False),
        ('{\n\n\n"a":1,"b":2}', False),
        ('{"a":  1,"b":2}', False),
        (' {"a":1,"b":2}', False),
        ('{"a":1,"b":2}\n', False),
    ],
)
def test_white_space_stands_where_llama_cpp_allows_it(
    text: str, right: bool, grammars: Grammars
) -> None:
    number = {"type": "integer"}
    schema = {"type": "object", "properties": {"a": number, "b": number}, "required": ["a", "b"]}
    assert writes(grammars.make(json.dumps(schema)), text) is right


@pytest.mark.parametrize("schema", ["{}", '{"type": "object"}', '{"additionalProperties": {}}'])
def test_a_name_that_no_schema_lists_has_no_space_behind_it(
    schema: str, grammars: Grammars
) -> None:
    for text, right in (('{ "a": 1 }', True), ('{ "a" : 1 }', False)):
        assert writes(grammars.make(schema), text) is right


def test_what_must_be_there_comes_first(grammars: Grammars) -> None:
    schema = json.dumps(
        {
            "type": "object",
            "properties": {"a": {"type": "null"}, "b": {"type": "null"}, "c": {"type": "null"}},
            "required": ["c"],
        }
    )
    for text, right in (
        ('{"c":null}', True),
        ('{"c":null,"a":null,"b":null}', True),
        ('{"a":null,"c":null}', False),
    ):
        assert writes(grammars.make(schema), text) is right


def test_as_many_digits_as_llama_cpp_allows(grammars: Grammars) -> None:
    for text, right in (("1234567890123456", True), ("12345678901234567", False)):
        assert writes(grammars.make('{"type": "number"}'), text) is right
        assert writes(grammars.make("json"), '{"n":' + text + "}")


def test_a_number_ends(grammars: Grammars) -> None:
    grammar, masks = grammars.make('{"type": "number"}'), Masks(TOKENIZER.vocab)
    for byte in b"0." + b"3" * 16:
        assert allowed(masks, grammar) >> byte & 1
        grammar.accept(byte)
    assert not allowed(masks, grammar) >> ord("3") & 1


@pytest.mark.parametrize(
    ("schema", "accepts", "refuses"),
    [
        ({}, ["{}", '{"a": []}'], ["1", '"x"', "null"]),
        ({"type": ["string", ""]}, ["1", '"x"', "null"], ["x"]),
        ({"type": None}, ["1"], ["x"]),
        ({"type": "integer", "enum": ["a", 1]}, ["1", '"a"'], ["2"]),
        ({"properties": {"a": {"type": "null"}}, "required": [5, "a"]}, ['{"a": null}'], ["{}"]),
        ({"properties": {"a": {"type": "null"}}, "required": 5}, ['{"a": null}', "{}"], ["1"]),
    ],
    ids=str,
)
def test_what_the_standard_reads_otherwise_or_not_at_all(
    schema: Any, accepts: list[str], refuses: list[str], grammars: Grammars
) -> None:
    """As llama.cpp reads it."""
    grammar = json.dumps(schema)
    assert all(writes(grammars.make(grammar), text) for text in accepts)
    assert not any(writes(grammars.make(grammar), text) for text in refuses)


# ---------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ({"type": "banana"}, "at #: unrecognized type banana"),
        ({"type": ["string", "banana"]}, "at #/type/1: unrecognized type banana"),
        ({"type": ["string", 5]}, "at #/type/1: type must be a string or an array of strings"),
        ({"type": 5}, "at #: type must be a string or an array of strings"),
        ({"type": []}, "at #: type must not be empty"),
        ({"enum": []}, "at #: enum must be a non-empty array"),
        ({"enum": "red"}, "at #: enum must be a non-empty array"),
        ({"anyOf": []}, "at #/anyOf: must not be empty"),
        ({"oneOf": {"type": "string"}}, "at #/oneOf: must be an array of schemas"),
        ({"$ref": 3}, "at #: $ref must be a string"),
        ({"$ref": "#/$defs/x"}, "at #: cannot resolve $ref #/$defs/x, $defs not found"),
        (
            {"$ref": "#/anyOf/3", "anyOf": [{}]},
            "at #: cannot resolve $ref #/anyOf/3, 3 is out of range",
        ),
        (
            {"$ref": "https://example.org/s.json"},
            "at #: unsupported $ref https://example.org/s.json, only references into the same "
            "document are supported",
        ),
        ({"properties": []}, "at #: properties must be an object"),
        ({"properties": {"a": True}}, "at #/properties/a: schema must be an object"),
        (
            {"type": "object", "additionalProperties": 1},
            "at #: additionalProperties must be a boolean or a schema",
        ),
        (
            {"properties": {"a": {"items": {"type": "x"}}}},
            "at #/properties/a/items: unrecognized type x",
        ),
        ({"type": "array", "minItems": -1}, "at #: minItems must be a non-negative integer"),
        ({"type": "string", "maxLength": 1.5}, "at #: maxLength must be a non-negative integer"),
        ({"type": "string", "pattern": 1}, "at #: pattern must be a string"),
        ({"type": "string", "format": 1}, "at #: format must be a string"),
        ({"type": "integer", "minimum": "1"}, "at #: minimum must be a number"),
    ],
    ids=str,
)
def test_refused_in_llama_cpps_words(schema: Any, message: str, grammars: Grammars) -> None:
    assert refusal(grammars, schema) == f"JSON schema error {message}"


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "integer", "minimum": 3, "maximum": 1},
        {"type": "string", "minLength": 5, "maxLength": 3},
        {"allOf": [{"type": "string"}, {"type": "integer"}]},
        {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}},
    ],
    ids=str,
)
def test_refused_because_nothing_fits(schema: Any, grammars: Grammars) -> None:
    assert refusal(grammars, schema)


@pytest.mark.parametrize(
    ("pattern", "problem"),
    [
        ("^(a$", "unbalanced parentheses"),
        ("^a)$", "unbalanced parentheses"),
        ("^[a$", "unterminated character class"),
        ("^*$", "nothing to repeat"),
    ],
)
def test_a_pattern_that_is_none_is_refused(pattern: str, problem: str, grammars: Grammars) -> None:
    schema = {"type": "string", "pattern": pattern}
    assert refusal(grammars, schema) == f"Invalid pattern {pattern}: {problem}"


# ------------------------------------------------------------------------------- hostile schemas


def nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "object"}
    for _ in range(depth):
        schema = {"type": "object", "properties": {"a": schema}, "required": ["a"]}
    return schema


BOMBS: dict[str, Any] = {
    "very deep": nested(300),
    "deep": nested(80),
    "a very long literal": {"enum": ["a" * 1_000_000]},
    "a very long name": {"properties": {"a" * 1_000_000: {}}},
    "a wide object": {"properties": {f"p{n}": {} for n in range(20_000)}},
    "many patterns": {"patternProperties": {f"^p{n}$": {} for n in range(5_000)}},
}


@pytest.mark.parametrize("name", BOMBS)
def test_too_much_is_refused(name: str, grammars: Grammars) -> None:
    assert refusal(grammars, BOMBS[name])


def test_a_text_nested_beyond_all_reason_is_refused(grammars: Grammars) -> None:
    with pytest.raises(RunnerFailed):
        grammars.make('{"not":' * 100_000 + "{}" + "}" * 100_000)


@pytest.mark.parametrize(
    "schema",
    [
        {"enum": [f"value number {n} of many" for n in range(100_000)]},
        {"type": "integer", "multipleOf": 9_999_991},
        {"type": "string", "pattern": "^(a|aa)+(a|a?)+b{1,1000}(x+x+)+y$"},
        {"type": "string", "pattern": "^((a{0,100}){0,100}){0,100}$"},
        {"type": "array", "minItems": 1_000_000, "maxItems": 2_000_000},
        {"type": "string", "maxLength": 100_000_000},
        {
            "$ref": "#/$defs/d0",
            "$defs": {
                **{f"d{n}": {"anyOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(60)},
                "d60": {"type": "integer"},
            },
        },
        {"type": "object", "properties": {f"p{n}": {"type": "string"} for n in range(1000)}},
    ],
    ids=lambda schema: str(schema)[:60],
)
def test_large_ones_that_can_be_done_are_done(schema: Any, grammars: Grammars) -> None:
    grammar = grammars.make(json.dumps(schema))
    assert allowed(Masks(TOKENIZER.vocab), grammar)


def test_several_masks_at_once_are_those_of_each(grammars: Grammars) -> None:
    masks = Masks(TOKENIZER.vocab)
    texts = ["json", *(case.text for case in CORPUS[:20])]
    together = [grammars.make(text) for text in texts]
    alone = [grammars.make(text) for text in texts]
    masks._each = 1.0  # as if they had been slow: several threads
    assert masks.compute(together) == [
        mask for grammar in alone for mask in Masks(TOKENIZER.vocab).compute([grammar])
    ]


class Spaced(ReferenceTokenizer):
    """Puts a space in front of every text, as SentencePiece models do."""

    def encode(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        found = super().encode(text, add_special=add_special, parse_special=parse_special)
        return [ord(" "), *found]


def test_a_tokenizer_that_puts_spaces_in_front_of_texts() -> None:
    """What a grammar forces is cut by the model's tokenizer, where no text begins."""
    grammars = Grammars(Spaced())
    for case in CORPUS[::5]:
        for text in case.accepts:
            assert writes(grammars.make(case.text), text), text


# ------------------------------------------------------------------------------------- compilers


class Slow(Grammars):
    """Takes as long as the test wants."""

    def __init__(self) -> None:
        super().__init__(TOKENIZER)
        self.go_on = threading.Event()

    def make(self, text: str) -> Grammar:
        self.go_on.wait(10)
        return super().make(text)


def test_a_schema_that_takes_too_long_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lhama.daemon.runner.grammar.compilers.DEADLINE", 0.05)
    slow = Slow()
    compilers = Compilers(slow)
    outcomes: list[Any] = []
    refused = threading.Event()
    compilers.begin(1, "json", lambda outcome: (outcomes.append(outcome), refused.set()))
    assert refused.wait(10)
    assert compilers.active == 0
    slow.go_on.set()
    compilers._threads.shutdown(wait=True)
    assert len(outcomes) == 1, "what came after the deadline is nobody's"
    assert isinstance(outcomes[0], RunnerFailed)
    assert outcomes[0].status == 400
    assert "compile" in outcomes[0].message


def test_a_cancelled_request_gets_no_grammar() -> None:
    slow = Slow()
    compilers = Compilers(slow)
    outcomes: list[Any] = []
    compilers.begin(1, "json", outcomes.append)
    assert compilers.cancel(1)
    assert not compilers.cancel(1)
    slow.go_on.set()
    compilers._threads.shutdown(wait=True)
    assert outcomes == []


def test_the_vocabulary_is_made_in_an_idle_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lhama.daemon.runner.grammar.compilers.IDLE", 0.01)
    grammars = Grammars(TOKENIZER)
    compilers = Compilers(grammars)
    busy, asked = True, threading.Event()

    def idle() -> bool:
        asked.set()
        return not busy

    compilers.prepare(idle)
    assert asked.wait(10)
    assert not grammars.ready
    busy = False
    deadline = threading.Event()
    for _ in range(1000):
        if grammars.ready:
            break
        deadline.wait(0.01)
    assert grammars.ready
    compilers.close()
    with pytest.raises(RunnerFailed):
        grammars.vocabulary()


# --------------------------------------------------------------------- the tests' own instruments


def test_the_prefix_check_knows_prefixes() -> None:
    text = '{"a": [1.5, "x\\u00e9\\"", true, null], "b": {}, "c": -1e5}'
    assert all(is_prefix(text[:n]) for n in range(len(text) + 1))
    assert not any(map(is_prefix, ("]", '{"a" 1', "[1 2", '{"a": tru1', "{]")))


def test_the_validity_check_knows_invalid_ones() -> None:
    case = next(case for case in CORPUS if case.name == "scalars: bounded integer")
    check_valid(case, "5")
    with pytest.raises(jsonschema.ValidationError):
        check_valid(case, "500")
    with pytest.raises(ValueError):
        check_valid(case, "5 5")
