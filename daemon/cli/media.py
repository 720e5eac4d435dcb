"""Pictures and sounds that a prompt names by their paths, as terminals write what is dropped on them."""

from __future__ import annotations

import base64
import re
from pathlib import Path

from lhama.daemon.cli import output
from lhama.daemon.cli.client import Json
from lhama.daemon.errors import BadRequest

SOUNDS = (".wav",)

_PATH = re.compile(
    r"""
    (['"]) (?P<quoted> (?:~|\.\.?)?/ [^'"\n]+? \.(?:jpe?g|png|webp|wav) ) \1
    | (?<![\w.~/\\:]) (?P<bare> (?:~|\.\.?)?/ (?:\\.|[^\s\\])+? \.(?:jpe?g|png|webp|wav) ) (?![\w/])
    """,
    re.IGNORECASE | re.VERBOSE,
)
"""A path in quotes, or with a backslash before each space; beginning so that it is one."""


def takes(details: Json) -> bool:
    """Whether a model, as ``/api/show`` has it, sees or hears."""
    return not {"vision", "audio"}.isdisjoint(details.get("capabilities") or [])


def extract(text: str) -> tuple[str, list[str]]:
    """The text without the paths of files that are there, and these in base64, each told of.

    Raises ``BadRequest`` for one that cannot be read.
    """
    found: list[str] = []

    def read(match: re.Match[str]) -> str:
        bare = match["bare"]
        path = Path(match["quoted"] or re.sub(r"\\(.)", r"\1", bare)).expanduser()
        if not path.is_file():
            return match[0]
        try:
            found.append(base64.b64encode(path.read_bytes()).decode())
        except OSError as error:
            raise BadRequest(f"cannot read {path}: {error.strerror}") from error
        output.note(f"Added {'audio' if path.suffix.lower() in SOUNDS else 'image'} '{path}'")
        return ""

    rest = _PATH.sub(read, text)
    return (rest.strip() if found else text), found
