"""What Go's ``text/template`` says of a template that gotpl refuses: the same place, Go's words.

Go names what it was reading (a command, an operand, a clause) where gotpl names what it found.
"""

from __future__ import annotations

import re

from lhama.daemon.durations import quote

FUNCTIONS = frozenset({"json", "currentDate", "yesterdayDate", "toTypeScriptType"})
"""What templates may call besides text/template's own functions."""

_KNOWN = FUNCTIONS | {
    *("and", "call", "html", "index", "js", "len", "not", "or", "print", "printf", "println"),
    *("slice", "urlquery", "eq", "ge", "gt", "le", "lt", "ne", "true", "false", "nil"),
    *("if", "else", "end", "range", "with", "block", "define", "template", "break", "continue"),
}
_STRINGS = re.compile(r'"(?:[^"\\]|\\.)*"|`[^`]*`')
_NAMES = re.compile(r"(?<![\w.$])[^\W\d]\w*")
_HEAD = re.compile(r"-?\s*(?:(?:else\s+)?(if|with)\b|(range|block|define|template|else|end)\b)?")
_BLOCKS = re.compile(r"\{\{(?:-\s)?\s*(if|range|with|block|define|end)\b")
_TOKEN = re.compile(r"\}\}|\w+|.", re.DOTALL)
_UNEXPECTED = re.compile(r"unexpected (['\"])(.*)\1", re.DOTALL)
_TERMINATORS = " \t\r\n.,|:()"
"""What may follow a name or field in Go."""


def translate(message: str, source: str, place: int) -> str:
    """Go's words for gotpl's ``message`` about ``place``, a byte's, in ``source``."""
    place = len(source.encode()[:place].decode(errors="replace"))
    action = source[source.rfind("{{", 0, place) + 2 : place]
    head = _HEAD.match(action)
    assert head is not None, "every part of the pattern may be missing"
    kind = head.group(1) or head.group(2) or ""
    match message:
        case "unexpected else" if _depth(source[:place]):
            return "expected end; found {{else}}"
        case "unexpected else" | "unexpected end":
            return f"unexpected {{{{{message.split()[1]}}}}}"
        case "break outside range" | "continue outside range":
            return f"{{{{{message.split()[0]}}}}} outside {{{{range}}}}"
        case "missing value for command":
            return f"missing value for {_clause(kind)}"
        case "empty command after pipe":
            return f'unexpected "|" in {_clause(kind)}'
        case "unclosed action" if "}" in (rest := source[source.rfind("{{", 0, place + 2) :]):
            read = rest[2 : rest.index("}")]
            return _unexpected("}", source, place, read.removeprefix(head.group()), kind)
        case "expected quoted template name" if found := _TOKEN.match(source, place):
            return f"unexpected {quote(found.group())} in {kind} clause"
    if found := _UNEXPECTED.fullmatch(message):
        return _unexpected(found.group(2), source, place, action[head.end() :], kind)
    return message.replace("'", '"')


def _unexpected(token: str, source: str, place: int, read: str, kind: str) -> str:
    """``read``: what was read of the action, its keyword ``kind`` aside."""
    if kind in ("end", "else"):
        return f"unexpected {quote(token)} in {kind}"
    if read[-1:].isalnum() and token and token[0] not in _TERMINATORS:
        return f"bad character U+{ord(token[0]):04X} '{token[0]}'"
    for name in _NAMES.findall(_STRINGS.sub("", read)):
        if name not in _KNOWN:
            return f'function "{name}" not defined'
    if token in ("+", "-"):
        following = source[place + 1 : place + 2]
        if following.isalnum():
            return f"bad number syntax: {quote(token + following)}"
        return f"illegal number syntax: {quote(token)}"
    if token == ":":
        return "expected :="
    before = read.rstrip()
    if before.endswith("("):
        return f"unexpected {quote(token)} in parenthesized pipeline"
    begins = not before or before.endswith("|")
    return f"unexpected {quote(token)} in {_clause(kind) if begins else 'operand'}"


def _clause(kind: str) -> str:
    return f"{kind} clause" if kind in ("block", "template") else kind or "command"


def _depth(source: str) -> int:
    """How many blocks are open at the end of ``source``."""
    words = _BLOCKS.findall(source)
    return len(words) - 2 * words.count("end")
