"""A Modelfile's commands → the body of a create request."""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

from lhama.daemon.modelfile import Command, ModelfileError

PARAMETERS: dict[str, Literal["int", "float", "bool", "list"]] = {
    "num_ctx": "int",
    "num_batch": "int",
    "num_gpu": "int",
    "main_gpu": "int",
    "num_thread": "int",
    "num_keep": "int",
    "num_predict": "int",
    "draft_num_predict": "int",
    "seed": "int",
    "top_k": "int",
    "repeat_last_n": "int",
    "temperature": "float",
    "top_p": "float",
    "min_p": "float",
    "typical_p": "float",
    "repeat_penalty": "float",
    "presence_penalty": "float",
    "frequency_penalty": "float",
    "use_mmap": "bool",
    "stop": "list",
}
DEPRECATED = (
    "penalize_newline",
    "low_vram",
    "f16_kv",
    "logits_all",
    "vocab_only",
    "use_mlock",
    "mirostat",
    "mirostat_tau",
    "mirostat_eta",
)

_SEMVER = re.compile(r"v?(0|[1-9]\d*)(\.(0|[1-9]\d*)){0,2}(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?")
_INTEGER = re.compile(r"[+-]?[0-9]+")

Locate: TypeAlias = Callable[[str], list[Path] | None]
"""An argument of FROM, ADAPTER or DRAFT → the files it names; ``None``: no such file."""


@dataclass(slots=True)
class CreateBody:
    """What to send, and what to upload before."""

    body: dict[str, Any] = field(default_factory=dict)
    """Without ``model`` and without files."""
    files: dict[str, list[Path]] = field(default_factory=dict)
    """By field of the request: ``files``, ``adapters``, ``draft_files``."""
    warnings: list[str] = field(default_factory=list)


def create_body(commands: tuple[Command, ...], locate: Locate) -> CreateBody:
    """What a Modelfile asks for. Raises ``ModelfileError`` for parameters that are unknown or of
    another type, and for files that are not there."""
    made = CreateBody()
    body, parameters = made.body, dict[str, Any]()
    for command in commands:
        value = command.value
        match command.name:
            case "from":
                if (found := locate(value)) is None:
                    body["from"] = value
                else:
                    made.files.setdefault("files", []).extend(found)
            case "adapter":
                made.files["adapters"] = _located(command, locate)
            case "draft":
                made.files.setdefault("draft_files", []).extend(_located(command, locate))
            case "license":
                body.setdefault("license", []).append(value)
            case "message":
                body.setdefault("messages", []).append({"role": command.key, "content": value})
            case "parameter" if command.key in DEPRECATED:
                made.warnings.append(f"parameter {command.key} is deprecated")
            case "parameter":
                _set_parameter(parameters, command)
            case "requires":
                if not _SEMVER.fullmatch(value):
                    raise ModelfileError("requires must be a valid semver (e.g. 0.14.0)")
                body["requires"] = value.removeprefix("v")
            case name:
                body[name] = value
    for path in made.files.get("draft_files", ()):
        if path in made.files.get("files", ()):
            raise ModelfileError(f"DRAFT must not reference the same local path as FROM: {path}")
    if parameters:
        body["parameters"] = parameters
    return made


def _located(command: Command, locate: Locate) -> list[Path]:
    found = locate(command.value)
    if found is None:
        raise ModelfileError(f"no such file: {command.value}", command.line)
    return found


def read_parameter(name: str, value: str) -> Any:
    """A parameter's text as the type the API wants. Raises ``ModelfileError``."""
    kind = PARAMETERS.get(name)
    try:
        match kind:
            case "int":
                return _integer(value)
            case "float":
                return _float32(value)
            case "bool":
                return _boolean(value)
            case "list":
                return [value]
    except (ValueError, OverflowError):
        raise ModelfileError(f"invalid {kind} value [{value}]") from None
    raise ModelfileError(f"unknown parameter '{name}'")


def _set_parameter(parameters: dict[str, Any], command: Command) -> None:
    value = read_parameter(command.key, command.value)
    if isinstance(value, list):
        parameters.setdefault(command.key, []).extend(value)
    else:
        parameters[command.key] = value


def _integer(text: str) -> int:
    """As Go reads one: no spaces, no underscores, 64 bits."""
    number = int(text) if _INTEGER.fullmatch(text) else 1 << 64
    if not -(1 << 63) <= number < 1 << 63:
        raise ValueError(text)
    return number


def _float32(text: str) -> float:
    """The shortest number that is the same in 32 bits, which is what Go sends."""
    if "_" in text or text != text.strip():
        raise ValueError(text)
    wanted = struct.pack("<f", float(text))
    if not math.isfinite(struct.unpack("<f", wanted)[0]):
        raise ValueError(text)
    shortest = (float(f"{float(text):.{digits}g}") for digits in range(1, 10))
    return next(number for number in shortest if struct.pack("<f", number) == wanted)


def _boolean(text: str) -> bool:
    if text in ("1", "t", "T", "true", "TRUE", "True"):
        return True
    if text in ("0", "f", "F", "false", "FALSE", "False"):
        return False
    raise ValueError(text)
