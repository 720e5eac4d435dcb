"""API keys: how they are written, whose a key is, and that none is shown."""

from __future__ import annotations

import pytest

from lhama.daemon.apikeys import ApiKeys
from lhama.daemon.config import BadSetting, Settings

KEYS = ApiKeys.parse("alice=secret-of-alice, bob=secret=of=bob  c2VjcmV0LWtleQ==")


@pytest.mark.parametrize(
    ("authorization", "x_api_key", "name"),
    [
        ("Bearer secret-of-alice", "", "alice"),
        ("bearer   secret=of=bob ", "", "bob"),
        ("Bearer c2VjcmV0LWtleQ==", "", "key3"),
        ("", "secret-of-alice", "alice"),
        ("Basic Zm9v", "secret-of-alice", "alice"),
        ("Bearer wrong", "secret-of-alice", None),
        ("Bearer secret-of-alic", "", None),
        ("secret-of-alice", "", None),
        ("Bearer ", "", None),
        ("", "", None),
        ("Bearer \udcff", "", None),
    ],
)
def test_callers(authorization: str, x_api_key: str, name: str | None) -> None:
    assert KEYS.caller(authorization, x_api_key) == name


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("alice=short", "entry 1: a key has 8 characters at least"),
        ("good-enough-key al/ice=good-enough-key", "entry 2: a name holds"),
        ("a=good-enough-key a=other-good-key", "entry 2: the name 'a' is there already"),
    ],
)
def test_keys_that_are_refused(text: str, problem: str) -> None:
    with pytest.raises(BadSetting) as caught:
        Settings.from_environment({"LHAMA_API_KEYS": text})
    assert caught.value.message.startswith(f"LHAMA_API_KEYS: {problem}")
    assert "good" not in caught.value.message


def test_without_keys_everybody_may_call() -> None:
    assert not ApiKeys.parse(" , ")
    assert not Settings().api_keys


def test_no_key_is_shown() -> None:
    environment = {"LHAMA_API_KEYS": "alice=secret-of-alice", "OLLAMA_API_KEY": "my-own-secret"}
    settings = Settings.from_environment(environment)
    assert (bool(settings.api_keys), settings.api_key) == (True, "my-own-secret")
    assert "secret" not in repr(settings)
