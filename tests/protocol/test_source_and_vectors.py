"""Name suffixes and embedding vectors."""

from __future__ import annotations

import pytest

from lhama.daemon.errors import BadRequest
from lhama.daemon.protocol.source import split_source, stored_name
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
        ("foo: Cloud", "foo", "cloud"),
        ("foo:bar-cloud/baz", "foo:bar-cloud/baz", ""),
    ],
)
def test_source_suffix(text: str, name: str, source: str) -> None:
    assert split_source(text) == (name, source)


@pytest.mark.parametrize("text", ["foo:cloud:local", "foo:local:local", "foo:7b-cloud:cloud"])
def test_two_suffixes_at_once(text: str) -> None:
    with pytest.raises(BadRequest) as caught:
        split_source(f" {text}")
    assert caught.value.message == f'use either :local or :cloud, not both: "{text}"'


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("x", "x"),
        ("x:20b:local", "x:20b"),
        ("x:cloud", "x:cloud"),
        ("x:20b:cloud", "x:20b-cloud"),
        ("x:20b-cloud", "x:20b-cloud"),
        ("host:5000/ns/x:cloud", "host:5000/ns/x:cloud"),
    ],
)
def test_a_cloud_model_has_its_suffix_in_a_registry(text: str, name: str) -> None:
    assert stored_name(text) == name


def test_vectors_get_length_one() -> None:
    assert finish([3.0, 4.0]) == [0.6, 0.8]
    assert finish([3.0, 4.0, 12.0], dimensions=2) == [0.6, 0.8]
    assert finish([3.0, 4.0], dimensions=-1) == finish([3.0, 4.0], dimensions=99)
    assert finish([0.0, 0.0]) == [0.0, 0.0]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_vectors_are_finite(bad: float) -> None:
    with pytest.raises(BadRequest, match="NaN or Inf"):
        finish([1.0, bad])
