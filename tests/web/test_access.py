"""Origins and Host names, as pure rules."""

from __future__ import annotations

import socket

import pytest

from lhama.daemon.config import Settings
from lhama.daemon.web import access

ORIGINS = Settings().origins


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        ("http://localhost", True),
        ("http://localhost:3000", True),
        ("https://127.0.0.1:8443", True),
        ("http://0.0.0.0:5", True),
        ("app://obsidian.md", True),
        ("file://", True),
        ("tauri://localhost", True),
        ("http://evil.example.com", False),
        ("http://localhost.evil.com", False),
        ("http://localhostevil", False),
        ("null", False),
        ("chrome-extension://abcdef", False),
    ],
)
def test_origins(origin: str, allowed: bool) -> None:
    assert access.origin_allowed(origin, ORIGINS) is allowed


def test_a_wildcard_stands_for_some_text_only_once() -> None:
    assert access.origin_allowed("https://a.example.com", ("https://*.example.com",))
    assert not access.origin_allowed("https://.com", ("https://.*.com",))


@pytest.mark.parametrize(
    ("header", "host"),
    [
        ("localhost:11434", "localhost"),
        ("localhost", "localhost"),
        ("[::1]:11434", "::1"),
        ("[::1]", "::1"),
        ("1.2.3.4:80", "1.2.3.4"),
        ("", ""),
    ],
)
def test_split_host(header: str, host: str) -> None:
    assert access.split_host(header) == host


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("127.0.0.1", True),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("198.18.0.1", False),
        ("::ffff:192.168.1.5", True),
        ("fd00::1", True),
        ("2001:db8::1", False),
        ("::1", True),
        ("0.0.0.0", True),
        ("192.168.1.5", True),
        ("8.8.8.8", False),
        ("localhost", False),
    ],
)
def test_addresses(host: str, allowed: bool) -> None:
    assert access.address_allowed(host) is allowed


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("", True),
        ("LOCALHOST", True),
        ("foo.localhost", True),
        ("box.internal", True),
        ("printer.local", True),
        (socket.gethostname(), True),
        ("evil.example.com", False),
        ("localhost.evil.com", False),
    ],
)
def test_names(host: str, allowed: bool) -> None:
    assert access.name_allowed(host) is allowed


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.1", True), ("localhost", True), ("::1", True), ("0.0.0.0", False), ("", False)],
)
def test_is_loopback(host: str, loopback: bool) -> None:
    assert access.is_loopback(host) is loopback
