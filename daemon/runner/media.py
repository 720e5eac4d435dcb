"""Pictures in a prompt: where they stand in its text, and in its tokens."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

from lhama.plugins.backend import Media

_MARKER = re.compile(r"\[img-(\d+)\]")
_BELOW = -16
"""Placeholders are smaller: no number that stands for something else (``DROPPED``)."""


def split(text: str, media: Sequence[bytes]) -> list[str | bytes]:
    """A prompt's text cut at its ``[img-N]``, each replaced by medium N. Numbers without a medium
    stay text; media that no marker names are left out."""
    parts: list[str | bytes] = []
    begin = 0
    for found in _MARKER.finditer(text):
        number = int(found[1])
        if number < len(media):
            parts += [text[begin : found.start()], media[number]]
            begin = found.end()
    parts.append(text[begin:])
    return [part for part in parts if part]


def lay_out(contents: Sequence[int | Media]) -> tuple[list[int], dict[int, Media]]:
    """A number for every position, and the media by their first.

    The numbers in a medium's place tell it from any other, so that caches are compared as ever.
    """
    tokens: list[int] = []
    media: dict[int, Media] = {}
    for content in contents:
        if isinstance(content, Media):
            media[len(tokens)] = content
            name = hashlib.sha256(content.digest.encode()).digest()[:7]
            first = _BELOW - (int.from_bytes(name) << 16)
            tokens += range(first, first - content.positions, -1)
        else:
            tokens.append(content)
    return tokens, media
