"""The first JSON value of a text, found as Go's decoder finds it.

Used when the fast parser refuses a request's body or a model's arguments: either Go would refuse
them too, with a text that clients see, or it only looks at the first value and ignores what
follows. States and texts are those of ``encoding/json``'s scanner.
"""

from __future__ import annotations

import re

from lhama.daemon.durations import quote

MAX_DEPTH = 10_000

_SPACE = re.compile(rb"[ \t\r\n]*")
_PLAIN = re.compile(rb'[^"\\\x00-\x1f]*')
_DIGITS = re.compile(rb"[0-9]*")
_HEX = frozenset(b"0123456789abcdefABCDEF")
_ESCAPES = frozenset(b'bfnrt\\/"')


class JsonSyntaxError(ValueError):
    """Go's ``SyntaxError``; the message is its text."""


class JsonTruncated(ValueError):
    """The body ends inside a value."""


class JsonEmpty(ValueError):
    """The body holds no value at all."""


def refusal(text: bytes) -> str | None:
    """Why ``json.Unmarshal``, which wants one value and nothing more, refuses ``text``."""
    try:
        _, end = first_value(text)
    except JsonSyntaxError as error:
        return str(error)
    except (JsonTruncated, JsonEmpty):
        return "unexpected end of JSON input"
    rest = _space(text, end)
    return str(_invalid(text[rest], "after top-level value")) if rest < len(text) else None


def members(body: bytes, at: int) -> list[tuple[bytes, bytes]]:
    """Keys and values of the object that begins at ``at``, as they are written.

    For an object that ``first_value`` has found right.
    """
    found = []
    at = _space(body, at + 1)
    while body[at] != ord("}"):
        end = _string(body, at)
        key = body[at:end]
        colon = _space(body, end)
        start, end = first_value(body, colon + 1)
        found.append((key, body[start:end]))
        at = _space(body, end)
        if body[at] == ord(","):
            at = _space(body, at + 1)
    return found


def first_value(body: bytes, at: int = 0) -> tuple[int, int]:
    """Bounds of the first value from ``at`` on. Raises one of the three errors above."""
    start = at = _space(body, at)
    if at == len(body):
        raise JsonEmpty
    closers: list[int] = []
    while True:
        at = _open(body, at, closers)
        # A value has ended at `at`: close what it ends, or find the next one.
        while True:
            if not closers:
                return start, at
            at = _space(body, at)
            char = _byte(body, at)
            if char == closers[-1]:
                closers.pop()
                at += 1
                continue
            in_object = closers[-1] == ord("}")
            if char != ord(","):
                place = "after object key:value pair" if in_object else "after array element"
                raise _invalid(char, place)
            at = _space(body, at + 1)
            if in_object:
                at = _key(body, at)
            break


def _open(body: bytes, at: int, closers: list[int]) -> int:
    """Read a scalar, or an opening bracket and what follows up to the next value's end."""
    while True:
        at = _space(body, at)
        char = _byte(body, at)
        if char not in b"{[":
            return _scalar(body, at, char)
        if len(closers) >= MAX_DEPTH:
            raise _invalid(char, "exceeded max depth")
        closers.append(ord("}") if char == ord("{") else ord("]"))
        at = _space(body, at + 1)
        if _byte(body, at) == closers[-1]:
            closers.pop()
            return at + 1
        if char == ord("{"):
            at = _key(body, at)


def _key(body: bytes, at: int) -> int:
    char = _byte(body, at)
    if char != ord('"'):
        raise _invalid(char, "looking for beginning of object key string")
    at = _space(body, _string(body, at))
    char = _byte(body, at)
    if char != ord(":"):
        raise _invalid(char, "after object key")
    return at + 1


def _scalar(body: bytes, at: int, char: int) -> int:
    if char == ord('"'):
        return _string(body, at)
    if char == ord("-") or ord("0") <= char <= ord("9"):
        return _number(body, at, char)
    for word in (b"true", b"false", b"null"):
        if char == word[0]:
            for offset, expected in enumerate(word):
                found = _byte(body, at + offset)
                if found != expected:
                    place = f"in literal {word.decode()} (expecting '{chr(expected)}')"
                    raise _invalid(found, place)
            return at + len(word)
    raise _invalid(char, "looking for beginning of value")


def _string(body: bytes, at: int) -> int:
    at += 1
    while True:
        at = _end(_PLAIN, body, at)
        char = _byte(body, at)
        if char == ord('"'):
            return at + 1
        if char != ord("\\"):
            raise _invalid(char, "in string literal")
        char = _byte(body, at + 1)
        at += 2
        if char == ord("u"):
            for _ in range(4):
                char = _byte(body, at)
                if char not in _HEX:
                    raise _invalid(char, "in \\u hexadecimal character escape")
                at += 1
        elif char not in _ESCAPES:
            raise _invalid(char, "in string escape code")


def _number(body: bytes, at: int, char: int) -> int:
    if char == ord("-"):
        at += 1
        char = _byte(body, at)
        if not ord("0") <= char <= ord("9"):
            raise _invalid(char, "in numeric literal")
    at = at + 1 if char == ord("0") else _end(_DIGITS, body, at)
    if body[at : at + 1] == b".":
        at = _digits(body, at + 1, "after decimal point in numeric literal")
    if body[at : at + 1] in (b"e", b"E"):
        at += 1
        if body[at : at + 1] in (b"+", b"-"):
            at += 1
        at = _digits(body, at, "in exponent of numeric literal")
    return at


def _digits(body: bytes, at: int, place: str) -> int:
    end = _end(_DIGITS, body, at)
    if end == at:
        raise _invalid(_byte(body, at), place)
    return end


def _space(body: bytes, at: int) -> int:
    return _end(_SPACE, body, at)


def _end(pattern: re.Pattern[bytes], body: bytes, at: int) -> int:
    match = pattern.match(body, at)
    assert match is not None, "the pattern matches nothing, too"
    return match.end()


def _byte(body: bytes, at: int) -> int:
    if at >= len(body):
        raise JsonTruncated
    return body[at]


def _invalid(char: int, place: str) -> JsonSyntaxError:
    # Go names the byte, not the character it may be part of.
    shown = {ord("'"): "\\'", ord('"'): '"'}.get(char) or quote(chr(char))[1:-1]
    return JsonSyntaxError(f"invalid character '{shown}' {place}")
