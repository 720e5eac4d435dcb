"""What ``quantize`` of a create request may ask for."""

from __future__ import annotations

from typing import Final

from lhama.daemon.errors import LhamaError
from lhama.daemon.store.configblob import file_type_name
from lhama.plugins.gguf import GGUF

KINDS: Final = {
    "F32": "F32",
    "F16": "F16",
    "BF16": "BF16",
    "Q8_0": "Q8_0",
    "Q4_K_S": "Q4_K_S",
    "Q4_K_M": "Q4_K_M",
    "Q4_K": "Q4_K_M",
}
"""By the name in the request, in capitals, the file type that is meant."""

_FLOATS: Final = {0: "F32", 1: "F16", 32: "BF16"}


def wanted(asked: str, header: GGUF, *, draft: bool = False) -> str:
    """The file type a file is to be written as; empty where it is that already, or none is asked.

    Raises ``LhamaError`` in Ollama's words.
    """
    if not asked:
        return ""
    if asked not in KINDS:
        raise LhamaError(
            f"unsupported quantization type {asked} - "
            "supported types are F32, F16, Q4_K_S, Q4_K_M, Q8_0"
        )
    number = header.get_int("general.file_type", -1)
    if number not in _FLOATS:
        if draft:
            raise LhamaError(
                f"draft quantization requires an unquantized draft model, got {file_type_name(number)}"
            )
        raise LhamaError("quantization is only supported for F16, BF16 and F32 models")
    kind = KINDS[asked]
    return "" if _FLOATS[number] == kind else kind


def float_type(header: GGUF) -> str:
    """The name of a file's type, as the progress line has it."""
    number = header.get_int("general.file_type", -1)
    return _FLOATS.get(number) or file_type_name(number)
