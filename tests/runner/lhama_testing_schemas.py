"""The corpus of JSON Schemas, and checks of what was written under them."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema

FOLDER = Path(__file__).parent / "schemas"

FORMATS = jsonschema.FormatChecker(["email", "ipv4", "ipv6", "uuid"])
"""With dates by RFC 3339's grammar: Python knows no year 0, and every leap year."""


@FORMATS.checks("date")
def _is_date(value: object) -> bool:
    return not isinstance(value, str) or bool(_DATE.fullmatch(value))


@FORMATS.checks("date-time")
def _is_date_time(value: object) -> bool:
    return not isinstance(value, str) or bool(_DATE_TIME.fullmatch(value))


_DATE = re.compile(r"[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])")
_DATE_TIME = re.compile(
    _DATE.pattern
    + r"[Tt][0-2][0-9]:[0-5][0-9]:[0-6][0-9](\.[0-9]+)?([Zz]|[+-][0-2][0-9]:[0-5][0-9])"
)


@dataclass(frozen=True)
class Case:
    """One schema; ``accepts`` and ``refuses`` are texts of the kind a model might write."""

    name: str
    schema: dict[str, Any]
    accepts: list[str]
    refuses: list[str]

    @property
    def kept(self) -> bool:
        """Whether all that the schema says is kept; some keywords llama.cpp ignores, and so
        does lhama where llguidance does not know them."""
        return not self.name.startswith("ignored")

    @property
    def text(self) -> str:
        return json.dumps(self.schema)


def corpus() -> list[Case]:
    return [
        Case(f"{file.stem}: {name}", case["schema"], case["accepts"], case["refuses"])
        for file in sorted(FOLDER.glob("*.json"))
        for name, case in json.loads(file.read_text("utf-8")).items()
    ]


def check_valid(case: Case, text: str) -> None:
    """Fails unless ``text`` is one whole JSON value that the schema allows."""
    value = json.loads(text)
    validator = jsonschema.Draft202012Validator
    if "draft-07" in case.schema.get("$schema", ""):
        validator = jsonschema.Draft7Validator
    validator(case.schema, format_checker=FORMATS).validate(value)


def is_prefix(text: str) -> bool:
    """Whether ``text`` can be the beginning of a JSON value: closing what is open makes it one."""
    closing: list[str] = []
    in_string = escaped = False
    for char in text:
        if in_string:
            in_string = escaped or char != '"'
            escaped = char == "\\" and not escaped
        elif char == '"':
            in_string = True
        elif char in "[{":
            closing.append("]" if char == "[" else "}")
        elif char in "]}" and (not closing or closing.pop() != char):
            return False
    ends = ['"', '\\"', '0"', '00"', '000"', '0000"'] if in_string else [""]
    tail = "".join(reversed(closing))
    words = [word[n:] for word in ("true", "false", "null") for n in range(len(word) + 1)]
    fillers = ["", *words, "0", ":0", '"":0', ',"":0', " :0", "e0", ".0"]
    return any(_reads(text + end + filler + tail) for end in ends for filler in fillers) or (
        not text.strip()
    )


def _reads(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True
