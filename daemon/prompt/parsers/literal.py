"""Literals as models write them in Python-like calls."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

_INTEGER = re.compile(r"[+-]?[0-9]+")
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_PYTHON = re.compile(
    r"""'(?P<single>(?:\\.|[^'\\])*)'|"(?:\\.|[^"\\])*"|\b(?P<word>True|False|None)\b""", re.DOTALL
)
_WORDS = {"True": "true", "False": "false", "None": "null"}
_INT64 = range(-(2**63), 2**63)


def scalar(text: str, nulls: Sequence[str] = ("null", "None")) -> tuple[bool, Any]:
    """Whether ``text`` is a boolean, a null or a number, and its value."""
    if text in ("true", "True"):
        return True, True
    if text in ("false", "False"):
        return True, False
    if text in nulls:
        return True, None
    return number(text)


def number(text: str) -> tuple[bool, int | float | None]:
    """Whether ``text`` is a number, and its value: an integer, if it is written as one and is an
    int64."""
    if _INTEGER.fullmatch(text) and int(text) in _INT64:
        return True, int(text)
    if _NUMBER.fullmatch(text) and math.isfinite(value := float(text)):
        return True, value
    return False, None


def to_json(text: str) -> str:
    """A literal of Python with JSON's quotes and words; escapes stay as they are."""
    return _PYTHON.sub(_as_json, text)


def _as_json(found: re.Match[str]) -> str:
    if found["word"]:
        return _WORDS[found["word"]]
    if found["single"] is None:
        return found.group()
    escaped = re.sub(
        r'\\.|"', lambda part: r"\"" if part.group() == '"' else part.group(), found["single"]
    )
    return f'"{escaped}"'
