"""The config blob: what a model says about itself besides its weights."""

from __future__ import annotations

from typing import Any

import msgspec

from lhama.daemon.errors import StoreError
from lhama.daemon.protocol import goencode


class Draft(msgspec.Struct, omit_defaults=True):
    """A small model that drafts for the large one; carried along, not used."""

    model_format: str = ""
    architecture: str = ""
    tensor_prefix: str = ""
    config: str = ""


class _Always(msgspec.Struct):
    """Fields written even when empty, in Ollama's order."""

    model_format: str = ""
    model_family: str = ""
    model_families: list[str] | None = None
    model_type: str = ""
    """The number of parameters in words: ``134.52M``."""
    file_type: str = ""
    """The quantization: ``Q4_K_M``."""


class Config(_Always):
    """Key order is Ollama's; the blob's digest depends on it."""

    renderer: str = ""
    parser: str = ""
    requires: str = ""
    remote_host: str = ""
    remote_model: str = ""
    capabilities: list[str] | None = None
    context_length: int = 0
    embedding_length: int = 0
    base_name: str = ""
    draft: Draft | None = None
    architecture: str = ""
    os: str = ""


_WRITTEN_EMPTY = frozenset((*_Always.__struct_fields__, "architecture", "os"))


def decode(data: bytes) -> Config:
    """Read a config blob; unknown keys are ignored, ``null`` is empty. Raises ``StoreError``."""
    try:
        raw = msgspec.json.decode(data)
        if not isinstance(raw, dict):
            raise StoreError("corrupt config blob: not an object")
        given = {key: value for key, value in raw.items() if value is not None}
        return msgspec.convert(given, Config)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise StoreError(f"corrupt config blob: {error}") from None


def encode(config: Config) -> bytes:
    """The bytes Ollama would write."""
    written: dict[str, Any] = {
        name: getattr(config, name)
        for name in Config.__struct_fields__
        if name in _WRITTEN_EMPTY or getattr(config, name)
    }
    return goencode.encode(written) + b"\n"


def human_number(count: int) -> str:
    """A number of parameters: ``7B``, ``1.2B``, ``134.52M``, ``500K``."""
    for unit, letter, digits in ((10**9, "B", 1), (10**6, "M", 2)):
        if count >= unit:
            return f"{count / unit:.{0 if count % unit == 0 else digits}f}{letter}"
    return f"{count / 1000:.0f}K" if count >= 1000 else str(count)


# fmt: off
FILE_TYPES = (
    "F32", "F16", "Q4_0", "Q4_1", "", "", "", "Q8_0", "Q5_0", "Q5_1",
    "Q2_K", "Q3_K_S", "Q3_K_M", "Q3_K_L", "Q4_K_S", "Q4_K_M", "Q5_K_S", "Q5_K_M", "Q6_K", "IQ2_XXS",
    "IQ2_XS", "Q2_K_S", "IQ3_XS", "IQ3_XXS", "IQ1_S", "IQ4_NL", "IQ3_S", "IQ3_M", "IQ2_S", "IQ2_M",
    "IQ4_XS", "IQ1_M", "BF16", "", "", "", "TQ1_0", "TQ2_0", "MXFP4_MOE", "NVFP4",
    "Q1_0",
)
# fmt: on
"""Names of GGUF's ``general.file_type`` by number; empty where a number is no longer in use."""


def file_type_name(number: int) -> str:
    """0 reads as ``unknown``: Ollama cannot tell F32 from a missing key."""
    known = 0 < number < len(FILE_TYPES)
    return (FILE_TYPES[number] if known else "") or "unknown"
