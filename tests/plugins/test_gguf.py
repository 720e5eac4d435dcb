"""The GGUF reader: real files, a round trip, and every lie a header can tell."""

from __future__ import annotations

import os
import random
import struct
import time
import tracemalloc
from pathlib import Path

import gguf as reference
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lhama.plugins import gguf
from lhama.plugins.gguf import GGUF, ArrayStub, GGUFError

SAMPLE_METADATA = {
    "general.architecture": "llama",
    "general.alignment": 32,
    "llama.block_count": 2,
    "llama.rope.freq_base": 10000.0,
    "llama.big": 1 << 40,
    "tokenizer.ggml.add_bos_token": True,
    "tokenizer.ggml.tokens": ["<s>", "é", "🦙"],
    "tokenizer.ggml.scores": [0.0, -1.0, -2.5],
    "tokenizer.ggml.nested": [[1, 2], [3]],
}
SAMPLE_TENSORS = {
    "token_embd.weight": ((32, 3), "Q4_0", bytes(range(54))),
    "output_norm.weight": ((5,), "F32", struct.pack("<5f", 1, 2, 3, 4, 5)),
}


@pytest.fixture
def sample(tmp_path: Path) -> Path:
    path = tmp_path / "sample.gguf"
    gguf.write(path, SAMPLE_METADATA, SAMPLE_TENSORS)
    return path


# ------------------------------------------------------------------------------------- real files


def test_reads_a_real_llama(smollm2: Path) -> None:
    header = gguf.read(smollm2)
    assert (header.architecture, header.version, header.alignment) == ("llama", 3, 32)
    assert header.parameter_count == 134_515_008
    assert header.get_int("llama.block_count") == header.get_int(header.key("block_count")) == 30
    assert header.get_float("llama.rope.freq_base") == 100_000.0
    assert header.types["llama.attention.layer_norm_rms_epsilon"] == "f32"
    assert header.metadata["tokenizer.ggml.tokens"] == ArrayStub("str", 49152)
    assert header.array_length("tokenizer.ggml.tokens") == 49152
    assert header.get_list("general.languages") == ["en"]
    assert header.get_bool("tokenizer.ggml.add_bos_token", True) is False
    assert header.get_str("no.such.key", "x") == "x"


def test_agrees_with_the_reference_reader(smollm2: Path) -> None:
    ours, theirs = gguf.read(smollm2, vocabulary=True), reference.GGUFReader(smollm2)
    assert list(ours.tensors) == [t.name for t in theirs.tensors]
    for tensor in theirs.tensors:
        mine = ours.tensors[tensor.name]
        assert mine.offset == tensor.data_offset
        assert mine.nbytes == tensor.n_bytes
        assert mine.shape == tuple(tensor.shape.tolist())
        assert mine.type_name == tensor.tensor_type.name
        assert mine.type == tensor.tensor_type.value
    tokens = ours.get_list("tokenizer.ggml.tokens")
    assert len(tokens) == 49152
    field = theirs.fields["tokenizer.ggml.tokens"]
    for index in (0, 1, 1000, 49151):
        assert tokens[index].encode() == bytes(field.parts[field.data[index]])


def test_reads_quantised_gemma(gemma3: Path) -> None:
    header = gguf.read(gemma3)
    assert header.architecture == "gemma3"
    assert {t.type_name for t in header.tensors.values()} >= {"Q4_K", "Q5_0", "Q6_K", "Q8_0", "F32"}
    assert max(t.offset + t.nbytes for t in header.tensors.values()) <= header.file_size


def test_is_fast_without_the_vocabulary(smollm2: Path) -> None:
    gguf.read(smollm2)
    best = min(_cpu_seconds(smollm2) for _ in range(5))
    assert best < 0.05


def _cpu_seconds(path: Path) -> float:
    begun = time.thread_time()
    gguf.read(path)
    return time.thread_time() - begun


def test_type_table_is_ggmls() -> None:
    for number, kind in gguf.TENSOR_TYPES.items():
        theirs = reference.GGMLQuantizationType(number)
        assert theirs.name == kind.name
        assert reference.GGML_QUANT_SIZES[theirs] == (kind.block, kind.size)


# ------------------------------------------------------------------------------------- round trip


def test_round_trip(sample: Path) -> None:
    header = gguf.read(sample)
    assert header.metadata == SAMPLE_METADATA
    assert header.types["llama.big"] == "i64"
    assert header.types["tokenizer.ggml.nested"] == "[[i32]]"
    assert header.parameter_count == 32 * 3 + 5
    data = sample.read_bytes()
    for name, (shape, type_name, payload) in SAMPLE_TENSORS.items():
        tensor = header.tensors[name]
        assert (tensor.shape, tensor.type_name) == (shape, type_name)
        assert tensor.offset % 32 == 0
        assert data[tensor.offset : tensor.offset + tensor.nbytes] == payload


def test_the_reference_reader_reads_what_we_write(sample: Path) -> None:
    theirs = reference.GGUFReader(sample)
    assert [t.name for t in theirs.tensors] == list(SAMPLE_TENSORS)
    assert bytes(theirs.tensors[1].data) == SAMPLE_TENSORS["output_norm.weight"][2]


def test_long_arrays_are_stepped_over(tmp_path: Path) -> None:
    path = tmp_path / "long.gguf"
    words = [f"w{i}" for i in range(2000)]
    gguf.write(path, {"a": words, "b": list(range(2000)), "c": "end"}, {})
    short = gguf.read(path)
    assert short.metadata == {"a": ArrayStub("str", 2000), "b": ArrayStub("i32", 2000), "c": "end"}
    assert short.get_list("a") == []
    whole = gguf.read(path, vocabulary=True)
    assert whole.metadata == {"a": words, "b": list(range(2000)), "c": "end"}


def test_header_longer_than_the_first_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "long.gguf"
    gguf.write(path, {"a": ["x" * 50] * 3000, "b": "end"}, SAMPLE_TENSORS)
    whole = gguf.read(path)
    monkeypatch.setattr(gguf.reading, "_FIRST_READ", 64)
    assert gguf.read(path) == whole
    monkeypatch.setattr(gguf.reading, "_MAX_HEADER", 4096)
    with pytest.raises(GGUFError, match="header larger than 4096 bytes"):
        gguf.read(path)


def test_vocabulary_bytes_survive(tmp_path: Path) -> None:
    path = tmp_path / "bytes.gguf"
    gguf.write(path, {"tokens": [b"\xff\xfe".decode("utf-8", "surrogateescape")]}, {})
    [token] = gguf.read(path).get_list("tokens")
    assert token.encode("utf-8", "surrogateescape") == b"\xff\xfe"


# ------------------------------------------------------------------------------------------- lies


def u32(value: int) -> bytes:
    return struct.pack("<I", value)


def u64(value: int) -> bytes:
    return struct.pack("<Q", value)


def text(value: str | bytes) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return u64(len(data)) + data


def head(tensors: int, keys: int, version: int = 3) -> bytes:
    return b"GGUF" + u32(version) + u64(tensors) + u64(keys)


def tensor(name: str = "t", dims: tuple[int, ...] = (4,), kind: int = 0, offset: int = 0) -> bytes:
    return text(name) + u32(len(dims)) + b"".join(map(u64, dims)) + u32(kind) + u64(offset)


def one_tensor(**lies: object) -> bytes:
    return head(1, 0) + tensor(**lies) + bytes(256)  # type: ignore[arg-type]


def one_key(payload: bytes, key: str | bytes = "k") -> bytes:
    return head(0, 1) + text(key) + payload + bytes(64)


def nested(depth: int) -> bytes:
    return u32(9) + (u32(9) + u64(1)) * depth + u32(4) + u64(1) + u32(7)


@pytest.mark.cve("2024-39720", "2026-7482")
@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"", "not a GGUF file"),
        (b"GGU", "not a GGUF file"),
        (b"PK\x03\x04" + bytes(100), "not a GGUF file"),
        (b"GGUF", "truncated: version"),
        (head(0, 0)[:-1], "truncated"),
        (head(0, 0, version=1), "version 1 is not supported"),
        (head(0, 0, version=9), "version 9 is not supported"),
        (head(0, 0, version=0x03000000), "big-endian"),
        (head(1 << 63, 0) + bytes(100), "tensors cannot fit"),
        (head(0, (1 << 64) - 1) + bytes(100), "metadata keys cannot fit"),
        (head(0, 1) + u64(1 << 40) + bytes(100), "a metadata key ends beyond the file"),
        (one_key(u32(8) + u64(1 << 62)), "the value of 'k' ends beyond the file"),
        (one_key(u32(13)), "unknown metadata type 13"),
        (one_key(u32(4), key=b"\xff"), "a metadata key is not valid UTF-8"),
        (one_key(u32(9) + u32(4) + u64(1 << 60)), "elements of 'k' cannot fit"),
        (one_key(u32(9) + u32(8) + u64(1 << 60)), "elements of 'k' cannot fit"),
        (one_key(u32(9) + u32(99) + u64(1)), "unknown element type 99"),
        (one_key(nested(50)), "nested too deep"),
        (one_key(u32(9) + u32(8) + u64(2) + text("a") + u64(1 << 50)), "truncated"),
        (head(0, 2) + (text("k") + u32(4) + u32(1)) * 2, "duplicate metadata key 'k'"),
        (one_key(u32(4) + u32(0), "general.alignment"), "bad alignment 0"),
        (one_key(u32(4) + u32(33), "general.alignment"), "bad alignment 33"),
        (one_key(u32(8) + text("x"), "general.alignment"), "bad alignment 'x'"),
        (one_tensor(dims=()), "has 0 dimensions"),
        (one_tensor(dims=(1, 1, 1, 1, 1)), "has 5 dimensions"),
        (one_tensor(dims=(0,)), "impossible shape"),
        (one_tensor(dims=(1 << 62, 4)), "impossible shape"),
        (one_tensor(dims=(1 << 40,)), "truncated: the tensor 't' ends at byte"),
        (one_tensor(offset=1 << 63), "truncated: the tensor 't' ends at byte"),
        (one_tensor(offset=3), "not aligned to 32 bytes"),
        (one_tensor(kind=4), "unknown type"),
        (one_tensor(kind=2, dims=(33,)), "do not divide into blocks of Q4_0"),
        (head(2, 0) + tensor() + tensor() + bytes(256), "duplicate tensor 't'"),
        (head(1, 0) + text(b"\xc3\x28") + bytes(256), "not valid UTF-8"),
    ],
)
def test_lies_are_refused(tmp_path: Path, data: bytes, complaint: str) -> None:
    path = tmp_path / "forged.gguf"
    path.write_bytes(data)
    for vocabulary in (False, True):
        with pytest.raises(GGUFError, match=complaint):
            gguf.read(path, vocabulary=vocabulary)


def test_only_regular_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "fifo", Path("/dev/zero"), tmp_path):
        with pytest.raises(GGUFError, match="not a regular file"):
            gguf.read(path)
    with pytest.raises(FileNotFoundError):
        gguf.read(tmp_path / "missing")


def test_a_sparse_file_of_empty_strings_is_bounded(tmp_path: Path) -> None:
    """Zeros are empty strings: a huge hole must not be walked string by string."""
    path = tmp_path / "sparse.gguf"
    with path.open("wb") as file:
        file.write(head(0, 1) + text("k") + u32(9) + u32(8) + u64(1 << 33))
        file.truncate(1 << 40)
    with pytest.raises(GGUFError, match="more than"):
        gguf.read(path)


def test_every_truncation_is_refused(sample: Path) -> None:
    data = sample.read_bytes()
    header = gguf.read(sample)
    end = max(t.offset + t.nbytes for t in header.tensors.values())
    for size in range(end):
        sample.write_bytes(data[:size])
        with pytest.raises(GGUFError):
            gguf.read(sample)


# ------------------------------------------------------------------------------------------- fuzz


def check(path: Path) -> GGUF | None:
    """The invariant: a header that holds what it promises, or a ``GGUFError``."""
    try:
        header = gguf.read(path, vocabulary=True)
    except GGUFError:
        return None
    for tensor in header.tensors.values():
        assert tensor.nbytes > 0
        assert header.data_offset <= tensor.offset
        assert tensor.offset + tensor.nbytes <= header.file_size
    return header


MUTATIONS = st.lists(
    st.tuples(
        st.integers(0, 2000),
        st.sampled_from([b"\x00", b"\xff", b"\x01", b"\x80", b"\xff" * 8, b"\x00" * 8, b"\x09"])
        | st.binary(min_size=1, max_size=9),
    ),
    max_size=6,
)


@pytest.mark.cve("2024-39720")
@settings(max_examples=400, deadline=2000, suppress_health_check=list(HealthCheck))
@given(mutations=MUTATIONS, cut=st.integers(0, 2000) | st.none())
def test_mutated_headers(
    tmp_path: Path, mutations: list[tuple[int, bytes]], cut: int | None
) -> None:
    path = tmp_path / "mutated.gguf"
    gguf.write(path, SAMPLE_METADATA, SAMPLE_TENSORS)
    data = bytearray(path.read_bytes())
    for at, change in mutations:
        at %= len(data)
        data[at : at + len(change)] = change
    path.write_bytes(data if cut is None else data[: cut % (len(data) + 1)])
    tracemalloc.start()
    try:
        check(path)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


@settings(max_examples=200, deadline=2000, suppress_health_check=list(HealthCheck))
@given(data=st.binary(max_size=400))
def test_random_bytes_behind_the_magic(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "random.gguf"
    path.write_bytes(b"GGUF" + u32(3) + data)
    check(path)


def test_real_header_mutated(tmp_path: Path, smollm2: Path) -> None:
    """Single bytes of a real header forged, seeded: each gives a header or one clear error."""
    rng = random.Random(7)
    with smollm2.open("rb") as file:
        original = file.read(1 << 21)
    size = smollm2.stat().st_size
    path = tmp_path / "real.gguf"
    outcomes = set()
    for trial in range(30):
        data = bytearray(original)
        data[rng.randrange((24, 1200, len(data))[trial % 3])] = rng.randrange(256)
        path.write_bytes(data)
        os.truncate(path, size)
        outcomes.add(check(path) is None)
    assert outcomes == {True, False}
