"""A model's layers while it is made, and what GGUF files say about their own role."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple

from lhama.daemon.durations import quote
from lhama.daemon.errors import LhamaError
from lhama.daemon.store import manifests
from lhama.daemon.store.digests import Digest
from lhama.daemon.store.manifests import Layer
from lhama.plugins.gguf import GGUF

_SHARD_NAME: Final = re.compile(r"(?:.*/)?(.*)-(\d{5})-of-(\d{5})\.gguf")


class Shard(NamedTuple):
    """One file of a model that is split into several."""

    digest: Digest
    name: str


@dataclass(slots=True)
class Part:
    """A layer, and what is known of it."""

    layer: Layer
    status: str
    """The line that tells of it."""
    header: GGUF | None = None
    """Of a GGUF file."""
    uploaded: bool = False
    """It came as a file of the request: not yet written anew."""
    shards: tuple[Shard, ...] = ()
    """All files of a split model, this layer's first; empty for one file."""


def describe(layer: Layer, *, new: bool = False) -> str:
    """The line that tells of a layer."""
    return f"{'creating new' if new else 'using existing'} layer {layer.digest}"


def role(header: GGUF) -> str:
    """The media type of a GGUF file by its metadata."""
    kind = header.get_str("general.type")
    if kind == "adapter":
        return manifests.ADAPTER
    blocks = header.get_int(header.key("block_count"))
    vision_only = not blocks and header.get_int(header.key("vision.block_count")) > 0
    clip = header.architecture == "clip" and not blocks
    encoders = any(header.get_bool(header.key(f"has_{e}_encoder")) for e in ("vision", "audio"))
    if kind in ("projector", "mmproj") or vision_only or (clip and encoders):
        return manifests.PROJECTOR
    return manifests.MODEL


def lacks_projector_type(header: GGUF) -> bool:
    """Whether this is a vision projector of the time when there was one kind only."""
    keys = ("clip.projector_type", "clip.vision.projector_type")
    return (
        header.architecture == "clip"
        and header.get_bool("clip.has_vision_encoder")
        and not any(key in header.metadata for key in keys)
    )


def join_shards(parts: Iterable[Part]) -> list[Part]:
    """Put the shards of a split model into one part each. Raises ``LhamaError``, in Ollama's
    words, for names and numbers that do not fit together."""
    joined: list[Part] = []
    groups: dict[tuple[str, str, int], dict[int, Part]] = {}
    for part in parts:
        count = _split_number(part, "split.count") or 0
        if count <= 1:
            joined.append(part)
            continue
        prefix, index = _shard_name(part, count)
        group = groups.setdefault((part.layer.media_type, prefix, count), {})
        if index in group:
            raise LhamaError(f"split GGUF has duplicate shard index {index}")
        group[index] = part
    for (_, _, count), group in groups.items():
        if len(group) != count:
            first = quote(next(iter(group.values())).layer.source)
            raise LhamaError(f"split GGUF {first} has {len(group)} shards, expected {count}")
        first_part = group[0]
        first_part.shards = tuple(
            Shard(group[i].layer.digest, group[i].layer.source) for i in range(count)
        )
        joined.append(first_part)
    return joined


def _shard_name(part: Part, count: int) -> tuple[str, int]:
    """A shard's prefix and index, the same by its name and by its metadata."""
    name = quote(part.layer.source)
    match = _SHARD_NAME.fullmatch(part.layer.source)
    index, total = (int(match[2]) - 1, int(match[3])) if match else (-1, 0)
    if match is None or index < 0 or not total:
        raise LhamaError(f"split GGUF {name} must use llama.cpp split filename pattern")
    if total != count:
        raise LhamaError(
            f"split GGUF {name} filename count {total} does not match metadata count {count}"
        )
    number = _split_number(part, "split.no")
    if number is None:
        raise LhamaError(f"split GGUF {name} is missing split.no metadata")
    if number != index:
        raise LhamaError(
            f"split GGUF {name} filename index {index} does not match metadata index {number}"
        )
    return match[1], index


def _split_number(part: Part, key: str) -> int | None:
    header = part.header
    assert header is not None
    for name in (key, header.key(key)):
        value = header.metadata.get(name)
        if type(value) is int and 0 <= value < 1 << 16:
            return value
    return None
