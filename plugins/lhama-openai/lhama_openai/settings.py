"""The servers that may be asked: a file, and variables that go before it.

A model's file names a server and nothing more. Addresses and keys are settings of this machine: so a
model that came from a stranger cannot send prompts or keys anywhere they do not go already.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from lhama.plugins.backend import BackendError

DIALECTS = ("openai", "vllm", "llama.cpp")
_VARIABLE = re.compile(r"LHAMA_OPENAI_([A-Z0-9_]+)_(URL|KEY|DIALECT|TIMEOUT|SLOTS)")
_NAME = re.compile(r"[a-z0-9][a-z0-9-]*")


@dataclass(frozen=True, slots=True)
class Server:
    """One server."""

    name: str
    url: str
    """Up to and with ``/v1``."""
    key: str = field(default="", repr=False)
    dialect: str = "openai"
    """What it knows beyond OpenAI's parameters: ``vllm`` and ``llama.cpp`` are sent all of a
    request's sampling."""
    timeout: float = 300.0
    """Seconds without a byte after which an answer is given up; a queue there counts too."""
    slots: int = 64
    """Answers asked for at once."""


def servers(environment: Mapping[str, str] | None = None) -> dict[str, Server]:
    """All servers by name. Raises ``BackendError`` that says what to mend."""
    environment = os.environ if environment is None else environment
    found = _of_file(path(environment))
    for variable, value in environment.items():
        if match := _VARIABLE.fullmatch(variable):
            name = match[1].lower().replace("_", "-")
            found.setdefault(name, {})[match[2].lower()] = value
    return {name: _server(name, given) for name, given in found.items()}


def path(environment: Mapping[str, str]) -> Path:
    """Where the file is, if there is one: ``openai.toml`` beside lhama's own."""
    if given := environment.get("LHAMA_OPENAI_CONFIG"):
        return Path(given)
    from platformdirs import user_config_path

    return user_config_path("lhama", appauthor=False) / "openai.toml"


def _of_file(file: Path) -> dict[str, dict[str, Any]]:
    try:
        tables = tomllib.loads(file.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise BackendError(f"{file} cannot be read: {error}") from error
    for name, table in tables.items():
        if not isinstance(table, dict):
            raise BackendError(f"{file}: {name!r} is outside of a table such as [gpu]")
    return tables


def _server(name: str, given: Mapping[str, Any]) -> Server:
    where = f"lhama-openai, server {name!r}"
    if not _NAME.fullmatch(name):
        raise BackendError(f"{where}: a name has small letters, digits and hyphens")
    known = {f.name: f.type for f in fields(Server) if f.name != "name"}
    if unknown := given.keys() - known.keys():
        raise BackendError(f"{where}: there is no setting {', '.join(sorted(unknown))}")
    values = dict(given)
    try:
        values["timeout"] = float(given.get("timeout", 300.0))
        values["slots"] = int(given.get("slots", 64))
    except (TypeError, ValueError):
        raise BackendError(f"{where}: timeout and slots are numbers") from None
    if not (values["timeout"] > 0 and values["slots"] > 0):
        raise BackendError(f"{where}: timeout and slots are above 0")
    if values.get("dialect", "openai") not in DIALECTS:
        raise BackendError(f"{where}: the dialect is one of {', '.join(DIALECTS)}")
    parts = urlsplit(str(given.get("url", "")))
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise BackendError(f"{where}: it needs a url such as http://10.0.0.5:8000/v1")
    values["url"] = parts.geturl().rstrip("/")
    return Server(name, **values)
