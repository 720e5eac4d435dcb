"""The suffix of a model's name that says where it runs: ``:local``, ``:cloud``, ``…-cloud``."""

from __future__ import annotations

from typing import Literal

from lhama.daemon.durations import quote
from lhama.daemon.errors import BadRequest

Source = Literal["", "local", "cloud"]


def split_source(text: str) -> tuple[str, Source]:
    """The name without its source suffix, and the source. Raises ``BadRequest`` for both at once."""
    name, source = _strip(text.strip())
    if source:
        _, again = _strip(name)
        if again and again != source:
            raise BadRequest(f"use either :local or :cloud, not both: {quote(text)}")
    return name, source


def stored_name(text: str) -> str:
    """The name a model has in store and registry: a cloud suffix is part of its tag there."""
    name, source = split_source(text)
    if source != "cloud":
        return name
    tagged = name.rfind(":") > name.rfind("/")
    return f"{name}-cloud" if tagged else f"{name}:cloud"


def _strip(text: str) -> tuple[str, Source]:
    name, colon, tag = text.rpartition(":")
    if not colon or "/" in tag:
        return text, ""
    if tag.lower() == "local":
        return name, "local"
    if tag.lower() == "cloud":
        return name, "cloud"
    if tag.lower().endswith("-cloud"):
        return text[: -len("-cloud")], "cloud"
    return text, ""
