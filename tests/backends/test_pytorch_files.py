"""What the PyTorch backend loads, what it refuses and in which words."""

from __future__ import annotations

import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pytorch_models import WIDTH, tiny

from lhama.backends.llamacpp.library import np
from lhama.backends.pytorch import backend as module
from lhama.backends.pytorch import memory
from lhama.backends.pytorch.backend import PyTorchBackend
from lhama.backends.pytorch.cuda import support
from lhama.backends.pytorch.hyperparameters import TENSOR_TYPES, Hyperparameters
from lhama.backends.pytorch.weights import Weights
from lhama.plugins.backend import (
    API_VERSION,
    BackendError,
    Device,
    LoadOptions,
    ModelFiles,
    OutOfMemory,
    UnsupportedModel,
)
from lhama.plugins.gguf import TENSOR_TYPE_IDS, read, write
from lhama.plugins.gguf import TENSOR_TYPES as LAYOUTS

import gguf.quants  # isort: skip - llama.cpp's library comes first
import torch  # isort: skip
from gguf.constants import GGMLQuantizationType  # isort: skip

SMALL = LoadOptions(slots=1, context=64, batch=64, threads=1)
MIB = 1 << 20


def files(path: Path) -> ModelFiles:
    return ModelFiles(path.stem, str(path))


def load(path: Path, options: LoadOptions = SMALL) -> list[tuple[float, str]]:
    """Load and close; returns the progress that was reported."""
    seen: list[tuple[float, str]] = []
    PyTorchBackend().load(files(path), options, lambda *step: seen.append(step)).close()
    return seen


# ------------------------------------------------------------------------------------ the backend


def test_registering_and_probing_import_nothing_native() -> None:
    script = """
import sys
from lhama.backends.pytorch.plugin import lhama_register_backends
found = []
lhama_register_backends(found.append)
(backend,) = found
probe = backend.probe()
assert backend.name == "pytorch" and probe.devices and probe.version, probe
heavy = {"torch", "numpy", "gguf", "tokenizers"} & set(sys.modules)
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-P", "-c", script], check=True, timeout=60)


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch, smollm2: Path) -> None:
    monkeypatch.setattr(module, "_NEEDED", ("torch", "no_such_library"))
    backend = PyTorchBackend()
    assert backend.api_version == API_VERSION
    problem = "no_such_library is not installed: pip install 'lhama[pytorch]'"
    assert backend.probe().problem == problem
    assert backend.supports(files(smollm2)).reason == problem
    with pytest.raises(UnsupportedModel, match="no_such_library"):
        load(smollm2)


def test_scores_leave_the_processor_to_llama_cpp(
    smollm2: Path, gemma3: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_accelerators", list)
    assert PyTorchBackend().supports(files(smollm2)).score == 50
    assert PyTorchBackend().supports(files(gemma3)).score == 50
    card = Device("cuda:0", "cuda", "card", 8 << 30, 8 << 30)
    monkeypatch.setattr(module, "_accelerators", lambda: [card])
    assert PyTorchBackend().supports(files(smollm2)).score == 60
    assert module.choose(SMALL) == card
    assert module.choose(replace(SMALL, gpu_layers=0)).kind == "cpu"
    with pytest.raises(BackendError, match="no GPU 3: 1 found"):
        module.choose(replace(SMALL, main_gpu=3))
    on_card = PyTorchBackend().estimate(files(smollm2), SMALL)
    assert on_card.weights_bytes == 2 * Hyperparameters.read(read(smollm2)).elements
    assert 0 < on_card.device_bytes <= on_card.total_bytes


def test_loading_reports_progress(tmp_path: Path) -> None:
    seen = load(tiny(tmp_path / "tiny.gguf", "llama"))
    shares = [share for share, _ in seen]
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1.0)
    assert len({round(share, 1) for share in shares}) > 5


# ----------------------------------------------------------------------------------------- memory


def test_estimates_cover_what_is_allocated(smollm2: Path) -> None:
    options = LoadOptions(slots=3, context=100, batch=64)
    estimate = PyTorchBackend().estimate(files(smollm2), options)
    shape = Hyperparameters.read(read(smollm2))
    assert estimate.weights_bytes == 4 * shape.elements
    assert estimate.kv_bytes == 4 * 2 * 30 * 3 * 100 * 3 * 64
    assert estimate.device_bytes == 0
    assert estimate.compute_bytes < 500 * MIB
    assert memory.estimate(shape, options, "metal").weights_bytes == 2 * shape.elements


def test_a_model_beyond_memory_is_refused_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tiny(tmp_path / "tiny.gguf", "llama")
    with pytest.raises(OutOfMemory, match=r"requires more system memory \(\d+.* is available \(\d"):
        load(path, replace(SMALL, slots=64, context=1 << 30))
    small = Device("cuda:0", "cuda", "card", MIB, MIB)
    monkeypatch.setattr(module, "_accelerators", lambda: [small])
    with pytest.raises(OutOfMemory, match="more accelerator memory"):
        load(path, replace(SMALL, slots=64, context=1 << 14))


# -------------------------------------------------------------------------------------- bad files


def test_cut_files_are_refused_in_words(tmp_path: Path) -> None:
    whole = tiny(tmp_path / "tiny.gguf", "llama", layers=1).read_bytes()
    numbers = random.Random(2)
    cut = tmp_path / "cut.gguf"
    for size in (0, 3, 24, *(numbers.randrange(len(whole)) for _ in range(20)), len(whole) - 64):
        cut.write_bytes(whole[:size])
        support = PyTorchBackend().supports(files(cut))
        assert support.score == 0
        assert support.reason.startswith("cut: ")
        with pytest.raises(UnsupportedModel):
            load(cut)


def test_random_and_missing_files_are_refused_in_words(tmp_path: Path) -> None:
    path = tmp_path / "random.gguf"
    path.write_bytes(random.Random(1).randbytes(5000))
    assert "not a GGUF file" in PyTorchBackend().supports(files(path)).reason
    path.write_bytes(b"GGUF" + random.Random(1).randbytes(5000))
    assert PyTorchBackend().supports(files(path)).score == 0
    gone = PyTorchBackend().supports(files(tmp_path / "gone.gguf"))
    assert "cannot read" in gone.reason
    assert "No such file" in gone.reason


def test_damaged_files_never_crash(tmp_path: Path) -> None:
    """Bytes of the header changed at random: a clear refusal, or a model that loads."""
    whole = tiny(tmp_path / "tiny.gguf", "gemma3", layers=1).read_bytes()
    numbers = random.Random(4)
    path = tmp_path / "damaged.gguf"
    refusals: list[str] = []
    for _ in range(60):
        damaged = bytearray(whole)
        for _ in range(numbers.randint(1, 4)):
            damaged[numbers.randrange(1500)] = numbers.randrange(256)
        path.write_bytes(damaged)
        try:
            load(path)
        except BackendError as error:
            refusals.append(str(error))
    assert len(refusals) > 10
    assert all(refusals)


@pytest.mark.parametrize(
    ("metadata", "reason"),
    [
        (
            {"general.architecture": "mamba"},
            r"architecture 'mamba' \(it knows .*llama, nomic-bert, phi3, qwen2",
        ),
        ({"tokenizer.ggml.model": "bert"}, "does not know the tokenizer 'bert'"),
        ({"llama.block_count": 0}, "llama.block_count is missing or makes no sense"),
        ({"llama.attention.head_count": [4, 4]}, "differs between layers"),
        ({"llama.attention.head_count_kv": 3}, "cannot share 3 key-value heads"),
        ({"llama.attention.value_length": 16}, "keys and values of different lengths"),
        ({"llama.rope.dimension_count": 48}, "RoPE over 48 of 32"),
        ({"llama.rope.dimension_count": 24}, "RoPE over 24 of 32 dimensions, neighbours"),
        ({"llama.rope.scaling.type": "bent"}, "RoPE scaling 'bent'"),
        (
            {"llama.rope.scaling.type": "yarn", "llama.rope.scaling.yarn_beta_slow": 40.0},
            "YaRN from 32.0 to 40.0 turns makes no sense",
        ),
        ({"llama.expert_count": 8, "llama.expert_used_count": 9}, "9 of 8 experts make no sense"),
        ({"llama.rope.freq_base": -1.0}, "rope.freq_base makes no sense"),
        ({"llama.embedding_length": 32}, "token embedding is missing or has a wrong shape"),
        ({"tokenizer.ggml.tokens": ["a", "b"]}, "2 tokens in the vocabulary, 272 embeddings"),
        ({"llama.pooling_type": 5}, "pooling type 5"),
        ({"llama.block_count": 3}, "the tensor 'blk.2.*' is missing"),
        ({"llama.feed_forward_length": 64}, r"has the shape \(96, 64\), not \(64, 64\)"),
        ({"tokenizer.ggml.scores": [0.0]}, "cut short"),
    ],
)
def test_models_it_cannot_run_are_refused_with_the_reason(
    metadata: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    source = read(tiny(tmp_path / "tiny.gguf", "llama", layers=2), vocabulary=True)
    data = Path(source.path).read_bytes()
    path = tmp_path / "other.gguf"
    tensors = {
        name: (t.shape, t.type_name, data[t.offset : t.offset + t.nbytes])
        for name, t in source.tensors.items()
    }
    write(path, {**source.metadata, **metadata}, tensors)  # type: ignore[dict-item]
    with pytest.raises(UnsupportedModel, match=reason):
        load(path)


def test_experts_and_unknown_types_are_refused(tmp_path: Path) -> None:
    router = {"blk.0.ffn_gate_inp.weight": (WIDTH, 8)}
    path = tiny(tmp_path / "moe.gguf", "qwen2", layers=1, extra=router)
    assert "mixtures of experts" in PyTorchBackend().supports(files(path)).reason
    source = read(path, vocabulary=True)
    write(path, source.metadata, {"token_embd.weight": ((WIDTH, 2), "I32", bytes(WIDTH * 8))})  # type: ignore[arg-type]
    assert "tensors of type I32" in PyTorchBackend().supports(files(path)).reason


# ---------------------------------------------------------------------------------------- tensors


@pytest.mark.parametrize("name", sorted(TENSOR_TYPES))
def test_each_listed_type_is_dequantised_in_pieces(name: str, tmp_path: Path) -> None:
    """Random blocks: what ``Weights`` gives piece by piece is what the tables give at once."""
    layout = LAYOUTS[TENSOR_TYPE_IDS[name]]
    columns, rows = 512, 700
    data = random.Random(name).randbytes(columns * rows // layout.block * layout.size)
    path = tmp_path / "one.gguf"
    write(path, {"general.architecture": "x"}, {"t": ((columns, rows), name, data)})
    weights = Weights(read(path), torch.device("cpu"), torch.float32)
    raw = np.frombuffer(data, np.uint8).reshape(rows, -1)
    with np.errstate(all="ignore"):
        expected = gguf.quants.dequantize(raw, GGMLQuantizationType[name])
        found = weights.take("t", rows, columns)
    assert found.dtype == torch.float32
    np.testing.assert_array_equal(found.numpy(), expected)


def test_q8_0_is_a_scale_times_a_byte(tmp_path: Path) -> None:
    scales = np.array([0.5, -2.0], np.float16)
    numbers = np.arange(-32, 32, dtype=np.int8).reshape(2, 32)
    data = b"".join(s.tobytes() + n.tobytes() for s, n in zip(scales, numbers, strict=True))
    path = tmp_path / "one.gguf"
    write(path, {"general.architecture": "x"}, {"t": ((64, 1), "Q8_0", data)})
    found = Weights(read(path), torch.device("cpu"), torch.float32).take("t", 1, 64)
    expected = scales.astype(np.float32)[:, None] * numbers
    np.testing.assert_array_equal(found.numpy(), expected.reshape(1, 64))


def test_a_file_cut_behind_its_header_is_noticed(tmp_path: Path) -> None:
    path = tiny(tmp_path / "tiny.gguf", "llama", layers=1)
    header = read(path)
    path.write_bytes(path.read_bytes()[: header.data_offset + 100])
    weights = Weights(header, torch.device("cpu"), torch.float32)
    with pytest.raises(BackendError, match="cut short"):
        weights.take("token_embd.weight", 272, WIDTH)


@pytest.mark.parametrize(
    ("family", "capability", "score", "reason"),
    [
        ("llama", (9, 0), 90, "ahead of llama.cpp"),
        ("llama", (10, 0), 75, "not measured on such a card"),
        ("llama", (7, 5), 60, "compute capability 7.5"),
        ("phi3", (9, 0), 75, "not run on a card yet for fused matrices"),
        ("qwen3moe", (9, 0), 75, "not run on a card yet for mixtures of experts"),
    ],
)
def test_only_what_a_card_has_shown_goes_before_llama_cpp(
    family: str,
    capability: tuple[int, int],
    score: int,
    reason: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(support.importlib.util, "find_spec", lambda name: object())  # Triton's
    mixed = {"expert_count": 6, "expert_used_count": 2} if "moe" in family else {}
    header = read(tiny(tmp_path / "tiny.gguf", family, layers=1, metadata=mixed))
    verdict = support.judge(header, Hyperparameters.read(header), capability)
    assert verdict.score == score
    assert reason in verdict.reason


def test_biases_that_no_kernel_adds_keep_a_model_from_the_kernels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(support.importlib.util, "find_spec", lambda name: object())
    extra = {"blk.0.ffn_down.bias": (WIDTH,), "blk.0.attn_output.bias": (WIDTH,)}
    header = read(tiny(tmp_path / "tiny.gguf", "llama", layers=1, extra=extra))
    verdict = support.judge(header, Hyperparameters.read(header), (9, 0))
    assert verdict.score == 60
    assert "no kernel adds blk.0.ffn_down.bias" in verdict.reason


def test_kernels_are_given_no_more_than_32_bits_count(tmp_path: Path) -> None:
    assert support.batch_tokens(LoadOptions(slots=1, context=1 << 17, batch=1 << 17)) == 1 << 14
    assert support.batch_tokens(LoadOptions(slots=1, context=1 << 17, batch=512)) == support.BATCH
    tensor = read(tiny(tmp_path / "tiny.gguf", "llama", layers=1)).tensors["token_embd.weight"]
    assert not support._refused(tensor)
    assert "more weights" in support._refused(replace(tensor, shape=(8192, (1 << 18) + 1)))
