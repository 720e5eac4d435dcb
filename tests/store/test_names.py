from __future__ import annotations

from pathlib import Path

import pytest

from lhama.daemon.errors import InvalidDigest, InvalidName
from lhama.daemon.store import Digest, ModelName


@pytest.mark.parametrize(
    ("text", "full", "short"),
    [
        ("smollm2", "registry.ollama.ai/library/smollm2:latest", "smollm2:latest"),
        ("smollm2:135m", "registry.ollama.ai/library/smollm2:135m", "smollm2:135m"),
        ("me/x:7b", "registry.ollama.ai/me/x:7b", "me/x:7b"),
        ("h.example:5000/me/x", "h.example:5000/me/x:latest", "h.example:5000/me/x:latest"),
        ("http://h:1/me/x:t", "h:1/me/x:t", "h:1/me/x:t"),
        ("REGISTRY.ollama.AI/Library/X:T", "REGISTRY.ollama.AI/Library/X:T", "X:T"),
        ("registry.ollama.ai/me/x", "registry.ollama.ai/me/x:latest", "me/x:latest"),
        ("_a.b-c:_1.2-x", "registry.ollama.ai/library/_a.b-c:_1.2-x", "_a.b-c:_1.2-x"),
        ("x" * 80, f"registry.ollama.ai/library/{'x' * 80}:latest", f"{'x' * 80}:latest"),
        (f"{'h' * 350}/n/m", f"{'h' * 350}/n/m:latest", f"{'h' * 350}/n/m:latest"),
    ],
)
def test_parse(text: str, full: str, short: str) -> None:
    name = ModelName.parse(text)
    assert (name.full, name.short) == (full, short)
    assert ModelName.parse(name.full) == name
    assert ModelName.from_path(name.path) == name


def test_scheme_is_kept_and_not_compared() -> None:
    assert ModelName.parse("http://h/n/m").scheme == "http"
    assert ModelName.parse("http://h/n/m") == ModelName.parse("h/n/m")
    assert ModelName.parse("m").scheme == "https"


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        "x:",
        ":x",
        "/x",
        "x/",
        "a//b",
        "a/b/c/d",
        "..",
        "../x",
        "x/../y",
        "x:..",
        ".x",
        "x/.y",
        "-x",
        "x:-y",
        "n.s/x",  # a dot is possible in a host, not in a namespace
        "n:s/x",
        "bad name!",
        "x\0y",
        "x\n",
        "ünï",
        "x:ß",
        "x@sha256:" + "0" * 64,
        "x" * 81,
        "x:" + "y" * 81,
        f"{'h' * 351}/n/m",
        "x\\y",
        "a:b:c",
    ],
)
def test_invalid_names(text: str) -> None:
    with pytest.raises(InvalidName, match=r"^invalid model name$"):
        ModelName.parse(text)


@pytest.mark.parametrize("path", ["a/b/c", "a/b/c/d/e", "a/b/c/.d", ".a/b/c/d", "a/b.c/d/e"])
def test_paths_that_are_no_names(path: str) -> None:
    with pytest.raises(InvalidName):
        ModelName.from_path(Path(path))


# ---------------------------------------------------------------------------------------- digests


def test_digest_spellings() -> None:
    colon, dash = (Digest.parse(f"sha256{mark}{'0a' * 32}") for mark in ":-")
    assert colon == dash
    assert str(dash) == "sha256:" + "0a" * 32
    assert dash.spelled == "sha256-" + "0a" * 32
    assert colon.filename == "sha256-" + "0a" * 32
    assert Digest.parse("sha256:" + "0A" * 32) != colon


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sha256:",
        "sha256:" + "0" * 63,
        "sha256:" + "0" * 65,
        "sha256:" + "0" * 63 + "g",
        "sha256:" + "0" * 64 + "\n",
        "sha256:" + "0" * 63 + "\0",
        "sha256_" + "0" * 64,
        "SHA256:" + "0" * 64,
        "sha512:" + "0" * 64,
        "0" * 64,
        "sha256:../../../etc/passwd",
        "sha256:" + "../" * 21 + "a",
        " sha256:" + "0" * 64,
    ],
)
def test_invalid_digests(text: str) -> None:
    with pytest.raises(InvalidDigest, match=r"^invalid digest format$"):
        Digest.parse(text)
