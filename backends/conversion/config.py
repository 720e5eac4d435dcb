"""``config.json`` of a checkpoint, looked at key by key: strangers wrote it."""

from __future__ import annotations

import math
from typing import Any, Final

from lhama.plugins.backend import UnsupportedModel

_MOST: Final = 1 << 31


class Config:
    """One JSON object. Looking up takes several keys: families spell the same thing differently.

    ``null`` counts as absent. Everything raises ``UnsupportedModel`` that names the key, for a
    value of another type and, unless a default is given, for none.
    """

    def __init__(self, raw: dict[str, Any], name: str = "config.json") -> None:
        self._raw = raw
        self._name = name

    def __contains__(self, key: str) -> bool:
        return self._raw.get(key) is not None

    def truthy(self, key: str) -> bool:
        """Whether something is there that is neither false nor empty."""
        return bool(self._raw.get(key))

    def count(self, *keys: str, default: int | None = None) -> int:
        """A whole number from 0 on."""
        value = self._find(keys, default)
        if type(value) is not int or not 0 <= value < _MOST:
            raise self._wrong(keys, value, "a number from 0 on")
        return value

    def number(self, *keys: str, default: float | None = None) -> float:
        value = self._find(keys, default)
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not math.isfinite(value)
        ):
            raise self._wrong(keys, value, "a number")
        return float(value)

    def flag(self, *keys: str, default: bool | None = None) -> bool:
        value = self._find(keys, default)
        if not isinstance(value, bool):
            raise self._wrong(keys, value, "true or false")
        return value

    def text(self, *keys: str, default: str | None = None) -> str:
        value = self._find(keys, default)
        if not isinstance(value, str):
            raise self._wrong(keys, value, "a string")
        return value

    def texts(self, key: str) -> list[str]:
        """A list of strings, empty without the key."""
        value = self._find((key,), [])
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self._wrong((key,), value, "a list of strings")
        return value

    def section(self, key: str) -> Config:
        """An object inside this one, empty without the key."""
        value = self._find((key,), {})
        if not isinstance(value, dict):
            raise self._wrong((key,), value, "an object")
        return Config(value, f"{self._name}: {key}")

    def over(self, other: Config) -> Config:
        """This one's keys, and the other's where this one has none."""
        return Config({**other._raw, **self._raw}, self._name)

    def _find(self, keys: tuple[str, ...], default: Any) -> Any:
        for key in keys:
            if (value := self._raw.get(key)) is not None:
                return value
        if default is None:
            raise UnsupportedModel(f"{self._name} has no {' or '.join(keys)}")
        return default

    def _wrong(self, keys: tuple[str, ...], value: Any, wanted: str) -> UnsupportedModel:
        return UnsupportedModel(f"{self._name}: {keys[0]} must be {wanted}, not {value!r:.60}")
