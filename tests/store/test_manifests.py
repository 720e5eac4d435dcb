from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lhama.daemon.errors import StoreError
from lhama.daemon.store import Digest, configblob, manifests
from lhama.daemon.store.configblob import Config
from lhama.daemon.store.manifests import Layer, Manifest

A, B = (Digest.from_hex(digit * 64) for digit in "ab")


def raw(**changes: Any) -> bytes:
    layer = {"mediaType": "m", "digest": str(A), "size": 1}
    whole = {"schemaVersion": 2, "mediaType": "x", "config": layer, "layers": [layer]}
    return json.dumps({**whole, **changes}).encode()


def test_round_trip_in_ollamas_bytes() -> None:
    manifest = Manifest(
        Layer(manifests.CONFIG, A, 3),
        (Layer(manifests.MODEL, B, 7, "smollm2:135m"), Layer(manifests.LICENSE, B, 7, name="<n>")),
    )
    data = manifests.encode(manifest)
    assert data == (
        b'{"schemaVersion":2,"mediaType":"application/vnd.docker.distribution.manifest.v2+json",'
        b'"config":{"mediaType":"application/vnd.docker.container.image.v1+json",'
        b'"digest":"sha256:' + b"a" * 64 + b'","size":3},"layers":['
        b'{"mediaType":"application/vnd.ollama.image.model","digest":"sha256:' + b"b" * 64 + b'",'
        b'"size":7,"from":"smollm2:135m"},'
        b'{"mediaType":"application/vnd.ollama.image.license","digest":"sha256:' + b"b" * 64 + b'",'
        b'"size":7,"name":"\\u003cn\\u003e"}]}\n'
    )
    assert manifests.decode(data) == manifest
    assert manifest.size == 17


def test_lenient_where_go_is() -> None:
    for data in (raw(extra=[1]), raw(mediaType=None), raw(schemaVersion=None), raw() + b"\n "):
        assert len(manifests.decode(data).layers) == 1
    assert manifests.decode(raw(layers=None)).layers == ()
    assert manifests.decode(raw(config=None)).config is None
    assert manifests.decode(raw(config={"mediaType": "", "digest": "", "size": 0})).config is None


LAYER = {"mediaType": "m", "digest": str(A), "size": 1}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0" * 100,
        b"[]",
        b"null",
        b"{}",
        b'"x"',
        raw()[:-1],
        raw(layers=[None]),
        raw(layers=[7]),
        raw(layers=["sha256:" + "a" * 64]),
        raw(layers={"0": LAYER}),
        raw(layers=[{**LAYER, "size": -1}]),
        raw(layers=[{**LAYER, "size": 1.5}]),
        raw(layers=[{**LAYER, "size": "1"}]),
        raw(layers=[{**LAYER, "size": 1 << 63}]),
        raw(layers=[{**LAYER, "digest": ""}]),
        raw(layers=[{**LAYER, "digest": "sha256:../../../etc/passwd"}]),
        raw(layers=[{**LAYER, "digest": 7}]),
        raw(layers=[{**LAYER, "mediaType": {}}]),
        raw(config="x"),
        raw(layers=[LAYER] * (manifests.MAX_LAYERS + 1)),
        b"[" * 100_000,
        raw(x="y" * manifests.MAX_BYTES),
    ],
)
def test_corrupt_manifests(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "latest"
    path.write_bytes(data)
    with pytest.raises(StoreError, match=r"^corrupt manifest: "):
        manifests.read(path)


# --------------------------------------------------------------------------------- config blob


def test_golden_digest_of_a_config() -> None:
    """Asserted by one of Ollama's own tests."""
    config = Config(
        model_format="gguf",
        model_family="test",
        model_families=["test"],
        model_type="0",
        file_type="unknown",
        architecture="amd64",
        os="linux",
    )
    digest = Digest.of(configblob.encode(config))
    assert digest.hex.startswith("99759ad5")
    assert digest.hex.endswith("bc8c")


def test_config_round_trip_keeps_every_key() -> None:
    config = Config(
        model_format="gguf",
        renderer="r<",
        parser="p",
        requires="1.2.3",
        remote_host="h",
        remote_model="m",
        capabilities=["tools"],
        context_length=1,
        embedding_length=2,
        base_name="b",
        draft=configblob.Draft(architecture="x"),
        architecture="amd64",
        os="linux",
    )
    data = configblob.encode(config)
    assert configblob.decode(data) == config
    assert list(json.loads(data)) == (
        [
            "model_format",
            "model_family",
            "model_families",
            "model_type",
            "file_type",
            "renderer",
            "parser",
            "requires",
            "remote_host",
            "remote_model",
            "capabilities",
            "context_length",
            "embedding_length",
            "base_name",
            "draft",
            "architecture",
            "os",
        ]
    )
    assert b'"renderer":"r\\u003c"' in data


@pytest.mark.parametrize("data", [b"", b"[]", b"{", b'{"model_format":7}', b"\xff", b"[" * 10**5])
def test_corrupt_configs(data: bytes) -> None:
    with pytest.raises(StoreError, match=r"^corrupt config blob: "):
        configblob.decode(data)


def test_config_takes_null_for_empty() -> None:
    assert configblob.decode(b'{"model_format":null,"unknown":1}') == Config()


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0"),
        (999, "999"),
        (1500, "2K"),
        (134_515_008, "134.52M"),
        (137_000_000, "137M"),
        (1_498_482_688, "1.5B"),
        (7_000_000_000, "7B"),
        (70_553_706_496, "70.6B"),
    ],
)
def test_human_numbers(count: int, text: str) -> None:
    assert configblob.human_number(count) == text


def test_file_types() -> None:
    assert configblob.file_type_name(15) == "Q4_K_M"
    assert configblob.file_type_name(32) == "BF16"
    assert configblob.file_type_name(40) == "Q1_0"
    for unknown in (0, 4, 33, 41, 1024, -1):
        assert configblob.file_type_name(unknown) == "unknown"
