"""Name suffixes and embedding vectors."""

from __future__ import annotations

import pytest

from lhama.daemon.errors import BadRequest
from lhama.daemon.protocol.source import split_source
from lhama.daemon.protocol.vectors import finish


@pytest.mark.parametrize(
    ("text", "name", "source"),
    [
        ("foo", "foo", ""),
        ("foo:7b", "foo:7b", ""),
        ("foo:cloud", "foo", "cloud"),
        ("gpt-oss:120b-cloud", "gpt-oss:120b", "cloud"),
        ("foo:7b:local", "foo:7b", "local"),
        (" foo:local ", "foo", "local"),
        ("my-cloud-model", "my-cloud-model", ""),
        ("my-cloud", "my-cloud", ""),
        ("host:5000/ns/foo", "host:5000/ns/foo", ""),
    ],
)
def test_source_suffix(text: str, name: str, source: str) -> None:
    assert split_source(text) == (name, source)


def test_both_suffixes_at_once() -> None:
    with pytest.raises(BadRequest) as caught:
        split_source("foo:cloud:local")
    assert caught.value.message == 'use either :local or :cloud, not both: "foo:cloud:local"'


def test_vectors_get_length_one() -> None:
    assert finish([3.0, 4.0]) == [0.6, 0.8]
    assert finish([3.0, 4.0, 12.0], dimensions=2) == [0.6, 0.8]
    assert finish([3.0, 4.0], dimensions=-1) == finish([3.0, 4.0], dimensions=99)
    assert finish([0.0, 0.0]) == [0.0, 0.0]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_vectors_are_finite(bad: float) -> None:
    with pytest.raises(BadRequest, match="NaN or Inf"):
        finish([1.0, bad])
