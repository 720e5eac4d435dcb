"""The suffix of a model's name that says where it runs: ``:local``, ``:cloud``, ``…-cloud``."""

from __future__ import annotations

from typing import Literal

from lhama.daemon.durations import quote
from lhama.daemon.errors import BadRequest

Source = Literal["", "local", "cloud"]


def split_source(text: str) -> tuple[str, Source]:
    """The name without its source suffix, and the source. Raises ``BadRequest`` for two of them."""
    text = text.strip()
    name, source = _strip(text)
    if source and _strip(name)[1]:
        raise BadRequest(f"use either :local or :cloud, not both: {quote(text)}")
    return name, source


def stored_name(text: str) -> str:
    """The name under which a registry, and a store that pulled from it, has the model.

    ``x:20b:cloud`` is ``x:20b-cloud`` there, and ``x:cloud`` is itself.
    """
    name, source = split_source(text)
    if source != "cloud":
        return name
    return name + ("-cloud" if name.rfind(":") > name.rfind("/") else ":cloud")


def _strip(text: str) -> tuple[str, Source]:
    name, colon, tag = text.rpartition(":")
    if not colon:
        return text, ""
    tag = tag.strip()
    if tag.lower() == "local":
        return name, "local"
    if tag.lower() == "cloud":
        return name, "cloud"
    if "/" not in tag and tag.lower().endswith("-cloud"):
        return f"{name}:{tag[: -len('-cloud')]}", "cloud"
    return text, ""
