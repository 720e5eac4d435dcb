"""Where settings come from: flags, the environment, a file; each as text under a variable's name."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final

CONFIG: Final = "LHAMA_CONFIG"
"""The file's path; empty: none. Not set: ``config.toml`` in the user's folder, else the machine's."""

_PREFIXES: Final = ("OLLAMA_", "LHAMA_")


class BadSource(ValueError):
    """A file or a flag that is no list of settings; the message says which and why."""


def key(variable: str) -> str:
    """A variable's name in a file and on the command line: ``keep_alive`` for ``OLLAMA_KEEP_ALIVE``."""
    for prefix in _PREFIXES:
        if variable.startswith(prefix):
            variable = variable.removeprefix(prefix)
            break
    return variable.lower()


class Sources(Mapping[str, str]):
    """All variables in one mapping: a flag wins over the environment, and that over the file."""

    def __init__(self, environ: Mapping[str, str], flags: Iterable[str], *, search: bool) -> None:
        """``flags`` are ``name=value``. ``search``: look for a file where none is named.

        Raises ``BadSource``.
        """
        path = _file(environ, search=search)
        self._environ = environ
        self._file = _read(path) if path is not None else {}
        self._flags = dict(map(_flag, flags))
        self.path = path
        self.asked: dict[str, None] = {}
        """The variables that were looked up, in order."""

    def __getitem__(self, variable: str) -> str:
        self.asked[variable] = None
        name = key(variable)
        if name in self._flags:
            return self._flags[name]
        if self._environ.get(variable, "").strip():
            return self._environ[variable]
        return self._file[name]

    def __iter__(self):  # type: ignore[no-untyped-def]
        return iter(self.asked)

    def __len__(self) -> int:
        return len(self.asked)

    def origin(self, variable: str) -> str:
        """Where a variable's value is from, in words."""
        name = key(variable)
        if name in self._flags:
            return f"--set {name}"
        if self._environ.get(variable, "").strip():
            return f"environment {variable}"
        return f"file {self.path}" if name in self._file else "default"

    def unknown(self) -> tuple[list[str], list[str]]:
        """Names in flags and file that nobody asked for, and all that may be asked."""
        known = sorted({key(variable) for variable in self.asked})
        return [name for name in (*self._flags, *self._file) if name not in known], known


def _file(environ: Mapping[str, str], *, search: bool) -> Path | None:
    if CONFIG in environ or not search:
        given = environ.get(CONFIG, "").strip()
        return Path(given).expanduser() if given else None
    from platformdirs import site_config_path, user_config_path

    folders: tuple[Callable[..., Path], ...] = (user_config_path, site_config_path)
    paths = (folder("lhama", appauthor=False) / "config.toml" for folder in folders)
    return next((path for path in paths if path.is_file()), None)


def _read(path: Path) -> dict[str, str]:
    try:
        with path.open("rb") as file:
            found = tomllib.load(file)
    except OSError as error:
        raise BadSource(f"{path} cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadSource(f"{path} is not TOML: {error}") from None
    return {name: _text(path, name, value) for name, value in found.items()}


def _text(path: Path, name: str, value: object) -> str:
    """A value as the environment would spell it."""
    match value:
        case bool():
            return "true" if value else "false"
        case str() | int() | float():
            return str(value)
        case list() if all(isinstance(part, str | int) for part in value):
            return ",".join(map(str, value))
    raise BadSource(f"{path}: {name} is no text, number, truth value or list of them")


def _flag(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise BadSource(f"--set {text}: name=value is wanted")
    return name.strip().lower().replace("-", "_"), value
