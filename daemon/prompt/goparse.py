"""Reads Go templates without running them: parse errors in Go's words, and walks of the tree.

gotpl's parser is not part of its public interface; this is the one module that uses it, and the
version is pinned.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from functools import lru_cache
from typing import Any

from gotpl import TemplateSyntaxError
from gotpl.parse import lexer, parse_template
from gotpl.parse import nodes as ast
from gotpl.parse.parser import ParserLimits

from lhama.daemon.errors import BadRequest, LhamaError
from lhama.daemon.prompt import gowords
from lhama.daemon.prompt.gowords import FUNCTIONS

MAX_TEMPLATE_BYTES = 128 * 1024
"""Templates of real models are below 20 kB."""
_LIMITS = ParserLimits(max_source_bytes=MAX_TEMPLATE_BYTES, max_tokens=MAX_TEMPLATE_BYTES)


def _linear(number: re.Pattern[str]) -> re.Pattern[str]:
    """gotpl's pattern without one repetition within another: it takes hours for ``{{ 000…x }}`` of
    forty digits, and nothing else in the process runs meanwhile."""
    return re.compile(number.pattern.replace(lexer._LEGACY_OCTAL_INTEGER, r"0(?:_?[0-7])+"))


lexer._NUMBER_PATTERN = _linear(lexer._NUMBER_PATTERN)
lexer._COMPLEX_PATTERN = _linear(lexer._COMPLEX_PATTERN)


class TemplateTextError(LhamaError):
    """A Go template that does not parse; the message is Go's, ``template: :1: unclosed action``."""


@lru_cache(maxsize=64)
def parse(text: str) -> ast.ParsedTemplate:
    """The syntax tree. Raises ``TemplateTextError``, also for too large and too deep templates."""
    if len(text) > MAX_TEMPLATE_BYTES:
        raise TemplateTextError(f"template: :1: longer than {MAX_TEMPLATE_BYTES} bytes")
    try:
        return parse_template(text, limits=_LIMITS, functions=FUNCTIONS)
    except TemplateSyntaxError as error:
        line = error.line
        message = gowords.translate(str(error).split(": ", 1)[-1], text, error.position or 0)
        raise TemplateTextError(f"template: :{line}: {message}") from None
    except (RecursionError, ValueError, StopIteration) as error:
        raise TemplateTextError(f"template: :1: not readable: {error}") from None


def validate(text: str) -> None:
    """For ``create``: raises ``BadRequest`` with ``template error: …`` if ``text`` cannot parse."""
    try:
        parse(text)
    except TemplateTextError as error:
        raise BadRequest(f"template error: {error.message}") from None


def walk(node: Any, ancestors: tuple[Any, ...] = ()) -> Iterator[tuple[Any, tuple[Any, ...]]]:
    """Every node in source order, a branch's pipeline before its lists, with its ancestors."""
    yield node, ancestors
    below = (*ancestors, node)
    for field in fields(node):
        value = getattr(node, field.name)
        for child in value if isinstance(value, tuple) else (value,):
            if is_dataclass(child) and not isinstance(child, type):
                yield from walk(child, below)


def trees(text: str) -> list[ast.ListNode]:
    """The root list and the bodies of all definitions."""
    parsed = parse(text)
    return [parsed.root, *(definition.body for definition in parsed.definitions)]


@lru_cache(maxsize=256)
def identifiers(text: str) -> frozenset[str]:
    """Lower-cased names of all fields that a template mentions anywhere in its actions."""
    return frozenset(
        name.lower()
        for tree in trees(text)
        for node, _ in walk(tree)
        if isinstance(node, ast.FieldNode | ast.VariableNode)
        for name in node.fields
    )


def is_legacy(text: str) -> bool:
    """Written for one turn (``.System .Prompt .Response``), not for ``.Messages``."""
    return "messages" not in identifiers(text)
