"""Modelfiles: text → commands → the body of a create request. No I/O.

The client parses a Modelfile; the server only ever sees the request made of it.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from lhama.daemon.errors import BadRequest

COMMANDS = (
    "from",
    "license",
    "template",
    "system",
    "adapter",
    "draft",
    "renderer",
    "parser",
    "parameter",
    "message",
    "requires",
)
ROLES = ("system", "user", "assistant")

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

_BOMS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"))
_SEMVER = re.compile(r"v?(0|[1-9]\d*)(\.(0|[1-9]\d*)){0,2}(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?")

Locate: TypeAlias = Callable[[str], dict[str, str] | None]
"""An argument of FROM, ADAPTER or DRAFT → file names and their digests; ``None``: no such file."""


class ModelfileError(BadRequest):
    """A Modelfile that cannot be read; ``line`` counts from 1, 0 where it is not one line's."""

    def __init__(self, message: str, line: int = 0) -> None:
        super().__init__(f"(line {line}): {message}" if line else message)


@dataclass(frozen=True, slots=True)
class Command:
    """One statement. ``key`` is PARAMETER's name or MESSAGE's role, else empty."""

    name: str
    value: str
    key: str = ""
    line: int = 0


@dataclass(frozen=True, slots=True)
class CreateRequest:
    """The body for ``/api/create`` without ``model``, and what to tell the user."""

    body: dict[str, Any]
    warnings: tuple[str, ...] = ()


def parse(source: bytes | str) -> tuple[Command, ...]:
    """The commands of a Modelfile in order. Raises ``ModelfileError``."""
    commands = tuple(_statements(_decode(source).split("\n")))
    if not any(command.name == "from" for command in commands):
        raise ModelfileError("no FROM line")
    return commands


def create_request(commands: tuple[Command, ...], locate: Locate) -> CreateRequest:
    """What to send to the server. ``locate`` turns file arguments into digests.

    Raises ``ModelfileError`` for parameters that are unknown or of another type.
    """
    body: dict[str, Any] = {}
    parameters: dict[str, Any] = {}
    warnings: list[str] = []
    for command in commands:
        value = command.value
        match command.name:
            case "from":
                files = locate(value)
                if files is None:
                    body["from"] = value
                else:
                    body.setdefault("files", {}).update(files)
            case "adapter" | "draft":
                files = locate(value)
                if files is None:
                    raise ModelfileError(f"no such file: {value}", command.line)
                field = "adapters" if command.name == "adapter" else "draft_files"
                body.setdefault(field, {}).update(files)
            case "license":
                body.setdefault("license", []).append(value)
            case "message":
                body.setdefault("messages", []).append({"role": command.key, "content": value})
            case "parameter" if command.key in DEPRECATED:
                warnings.append(f"parameter '{command.key}' is deprecated and has no effect")
            case "parameter":
                _set_parameter(parameters, command)
            case "requires":
                if not _SEMVER.fullmatch(value):
                    raise ModelfileError("requires must be a valid semver (e.g. 0.14.0)")
                body["requires"] = value.removeprefix("v")
            case name:
                body[name] = value
    if parameters:
        body["parameters"] = parameters
    return CreateRequest(body, tuple(warnings))


def read_parameter(name: str, value: str) -> Any:
    """A parameter's text as the type the API wants. Raises ``ModelfileError``."""
    kind = PARAMETERS.get(name)
    try:
        match kind:
            case "int":
                return int(value)
            case "float":
                return float(value)
            case "bool":
                return _boolean(value)
            case "list":
                return [value]
    except ValueError:
        raise ModelfileError(f"invalid {kind} value [{value}]") from None
    raise ModelfileError(f"unknown parameter '{name}'")


def _set_parameter(parameters: dict[str, Any], command: Command) -> None:
    value = read_parameter(command.key, command.value)
    if isinstance(value, list):
        parameters.setdefault(command.key, []).extend(value)
    else:
        parameters[command.key] = value


def _boolean(text: str) -> bool:
    if text in ("1", "t", "T", "true", "TRUE", "True"):
        return True
    if text in ("0", "f", "F", "false", "FALSE", "False"):
        return False
    raise ValueError(text)


def _decode(source: bytes | str) -> str:
    if isinstance(source, str):
        return source.removeprefix("\ufeff")
    for mark, encoding in (*_BOMS, (codecs.BOM_UTF16_BE, "utf-16-be")):
        if source.startswith(mark):
            return source[len(mark) :].decode(encoding, "replace")
    return source.decode("utf-8", "replace")


def _statements(lines: list[str]) -> Iterator[Command]:
    """Cut lines into statements; a quoted value runs on until its quotes close at a line's end."""
    at = 0
    while at < len(lines):
        start, text = at + 1, lines[at].strip()
        at += 1
        if not text or text.startswith("#"):
            continue
        word, value = _first_word(text)
        name, key = word.lower(), ""
        if name not in COMMANDS:
            expected = ", ".join(f'"{c}"' for c in COMMANDS[:-1]) + f', or "{COMMANDS[-1]}"'
            raise ModelfileError(f"command must be one of {expected}", start)
        if name in ("parameter", "message"):
            key, value = _first_word(value)
        if name == "message" and key not in ROLES:
            raise ModelfileError(
                'message role must be one of "system", "user", or "assistant"', start
            )
        if not value:
            raise ModelfileError(f"unexpected EOF: {text} has no value")
        while (unquoted := _unquote(value.strip())) is None:
            if at == len(lines):
                raise ModelfileError(f"unexpected EOF: the quote opened in line {start} stays open")
            value += "\n" + lines[at]
            at += 1
        yield Command(name, unquoted, key, start)


def _first_word(text: str) -> tuple[str, str]:
    word, *rest = text.split(maxsplit=1) or [""]
    return word, rest[0] if rest else ""


def _unquote(value: str) -> str | None:
    """The text between the quotes; ``None`` while a quote is open."""
    for quote in ('"""', '"'):
        if value.startswith(quote):
            closed = len(value) >= 2 * len(quote) and value.endswith(quote)
            return value[len(quote) : -len(quote)] if closed else None
    return value
