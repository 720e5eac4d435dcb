"""``info`` of a create request: values of the config blob given by hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lhama.daemon.durations import quote
from lhama.daemon.errors import BadRequest
from lhama.daemon.store.configblob import Config

_LARGEST = (1 << 63) - 1


def apply(info: Mapping[str, Any], config: Config) -> None:
    """Put ``info`` into ``config``. Raises ``BadRequest`` that names the field of a wrong type."""
    capabilities = info.get("capabilities")
    if isinstance(capabilities, list):
        given = [c if isinstance(c, str) else "" for c in capabilities]
        config.capabilities = [*(config.capabilities or []), *given]
    config.model_family = _text(info, "model_family")
    if config.model_family:
        config.model_families = [config.model_family]
    config.base_name = _text(info, "base_name")
    config.file_type = _text(info, "quantization_level")
    config.model_type = _text(info, "parameter_size")
    config.context_length = _count(info, "context_length")
    config.embedding_length = _count(info, "embedding_length")


def _text(info: Mapping[str, Any], key: str) -> str:
    value = info.get(key, "")
    if not isinstance(value, str):
        raise BadRequest(f"info field {quote(key)} must be a string")
    return value


def _count(info: Mapping[str, Any], key: str) -> int:
    value = info.get(key, 0)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadRequest(f"info field {quote(key)} must be a number")
    if not 0 <= value <= _LARGEST or int(value) != value:
        raise BadRequest(f"info field {quote(key)} must be a non-negative integer")
    return int(value)
