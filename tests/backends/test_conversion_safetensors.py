"""Headers of safetensors that lie, shards that are missing."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lhama.backends.conversion import safetensors
from lhama.plugins.backend import UnsupportedModel


def write(path: Path, header: Any, data: bytes = b"", length: int | None = None) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
    return path


def tensor(dtype: Any = "F32", shape: Any = (2, 2), offsets: Any = (0, 16)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def test_values_come_in_their_own_type(tmp_path: Path) -> None:
    data = np.arange(4, dtype=np.float32)
    header = {
        "__metadata__": {"format": "pt"},
        "a": tensor(),
        "b": tensor("BF16", [2], [16, 20]),
    }
    path = write(tmp_path / "x.safetensors", header, data.tobytes() + b"\x80\x3f\x00\xc0")
    a, b = safetensors.read_header(path)
    assert a.values().tolist() == [[0.0, 1.0], [2.0, 3.0]]
    assert b.values().tolist() == [0x3F80, 0xC000]
    assert safetensors.float32(b).tolist() == [1.0, -2.0]


@pytest.mark.parametrize(
    ("header", "words"),
    [
        (b"", "not valid JSON"),
        (b"[]", "no JSON object"),
        (b'{"a":' + b"[" * 100_000, "not valid JSON"),
        ({"a": 5}, "not described by an object"),
        ({"a": tensor(dtype="F4")}, "unknown type 'F4'"),
        ({"a": tensor(dtype=["F32"])}, "unknown type"),
        ({"a": tensor(shape=[2, -2])}, "impossible shape"),
        ({"a": tensor(shape=[2, 2.0])}, "impossible shape"),
        ({"a": tensor(shape=[1] * 9)}, "impossible shape"),
        ({"a": tensor(shape=[1 << 60])}, "impossible shape"),
        ({"a": tensor(offsets=[0])}, "impossible offsets"),
        ({"a": tensor(offsets=[-16, 0])}, "impossible offsets"),
        ({"a": tensor(offsets=[0, 12])}, "takes 12 bytes where its shape needs 16"),
        ({"a": tensor(offsets=[4, 20])}, "ends at byte"),
    ],
)
def test_a_header_that_lies_is_refused(tmp_path: Path, header: Any, words: str) -> None:
    path = write(tmp_path / "x.safetensors", header, bytes(16))
    with pytest.raises(UnsupportedModel, match=words):
        safetensors.read_header(path)


@pytest.mark.parametrize("length", [17, 1 << 40, (1 << 64) - 1])
def test_a_header_longer_than_the_file_is_refused(tmp_path: Path, length: int) -> None:
    with pytest.raises(UnsupportedModel, match="does not fit"):
        safetensors.read_header(write(tmp_path / "x.safetensors", {}, length=length))


def test_a_file_of_three_bytes_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes(b"abc")
    with pytest.raises(UnsupportedModel, match="does not fit"):
        safetensors.read_folder(tmp_path)


def test_shards_are_those_of_the_index(tmp_path: Path) -> None:
    write(tmp_path / "model-00001-of-00002.safetensors", {"a": tensor()}, bytes(16))
    write(tmp_path / "model-00002-of-00002.safetensors", {"b": tensor()}, bytes(16))
    write(tmp_path / "consolidated.safetensors", {"c": tensor()}, bytes(16))
    assert set(safetensors.read_folder(tmp_path)) == {"a", "b", "c"}
    index = tmp_path / safetensors.INDEX
    names = [f"model-0000{n}-of-00002.safetensors" for n in (1, 2)]
    index.write_text(json.dumps({"weight_map": dict(zip("ab", names, strict=True))}))
    assert set(safetensors.read_folder(tmp_path)) == {"a", "b"}
    (tmp_path / names[1]).unlink()
    with pytest.raises(UnsupportedModel, match=f"names {names[1]}, which is missing"):
        safetensors.read_folder(tmp_path)


@pytest.mark.parametrize("name", ["../x.safetensors", "/etc/passwd"])
def test_an_index_cannot_lead_elsewhere(tmp_path: Path, name: str) -> None:
    write(tmp_path / "x.safetensors", {"a": tensor()}, bytes(16))
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / safetensors.INDEX).write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(UnsupportedModel, match="which is missing"):
        safetensors.read_folder(folder)


def test_a_tensor_in_two_shards_is_refused(tmp_path: Path) -> None:
    for name in ("x", "y"):
        write(tmp_path / f"{name}.safetensors", {"a": tensor()}, bytes(16))
    with pytest.raises(UnsupportedModel, match="is there twice"):
        safetensors.read_folder(tmp_path)
