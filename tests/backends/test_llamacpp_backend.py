"""What the llama.cpp backend says about machines and models before it loads anything."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from lhama.backends import devices
from lhama.backends.llamacpp import memory
from lhama.backends.llamacpp.architectures import KNOWN
from lhama.backends.llamacpp.backend import LlamaCppBackend, installed
from lhama.plugins.backend import BackendError, LoadOptions, ModelFiles
from lhama.plugins.gguf import read

needs_library = pytest.mark.skipif(not installed(), reason="llama-cpp-python is not installed")


@needs_library
def test_probe_finds_the_processor() -> None:
    probe = LlamaCppBackend().probe()
    assert probe.problem == ""
    assert probe.version
    assert probe.devices[0].kind == "cpu"
    assert 0 < probe.devices[0].free_bytes <= probe.devices[0].total_bytes


def test_probe_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "pip install 'lhama[llamacpp]'" in LlamaCppBackend().probe().problem


def test_the_plugin_and_its_answers_import_nothing_native(smollm2: Path) -> None:
    script = f"""
import sys
import lhama.backends.llamacpp.plugin as plugin
from lhama.plugins.backend import LoadOptions, ModelFiles
found = []
plugin.lhama_register_backends(found.append)
[backend] = found
model = ModelFiles("m", {str(smollm2)!r})
backend.probe(), backend.supports(model), backend.estimate(model, LoadOptions())
assert not {{"llama_cpp", "numpy", "torch"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-P", "-c", script], check=True)


@needs_library
def test_supports_real_models_and_refuses_others(
    smollm2: Path, gemma3: Path, tmp_path: Path
) -> None:
    backend = LlamaCppBackend()
    for path in (smollm2, gemma3):
        assert backend.supports(ModelFiles("m", str(path))).score == 80
    other = tmp_path / "other.gguf"
    data = smollm2.read_bytes()
    other.write_bytes(data.replace(b"llama", b"llamo", 1))
    support = backend.supports(ModelFiles("m", str(other)))
    assert support.score == 0
    assert "does not know the architecture 'llamo'" in support.reason
    other.write_bytes(data[:5000])
    assert "truncated" in backend.supports(ModelFiles("m", str(other))).reason


def test_reference_is_not_llama_cpps() -> None:
    assert "reference" not in KNOWN
    assert {"llama", "gemma3", "qwen3", "bert", "t5"} <= KNOWN


@needs_library
def test_every_known_architecture_is_in_the_library() -> None:
    origin = __import__("importlib.util").util.find_spec("llama_cpp").origin
    libraries = [p for p in (Path(origin).parent / "lib").glob("*llama.*") if p.is_file()]
    data = b"".join(path.read_bytes() for path in libraries)
    assert [name for name in sorted(KNOWN) if name.encode() + b"\0" not in data] == []


def test_the_estimate_counts_weights_and_cache(smollm2: Path) -> None:
    header = read(smollm2)
    options = LoadOptions(slots=4, context=1000, kv_type="f16")
    found = memory.estimate(header, options)
    assert found.weights_bytes == sum(tensor.nbytes for tensor in header.tensors.values())
    assert found.kv_bytes == 4000 * 30 * 3 * (64 + 64) * 2
    assert found.device_bytes == 0
    quantised = memory.estimate(header, replace(options, kv_type="q8_0"))
    assert quantised.kv_bytes == found.kv_bytes * 34 // 64
    with pytest.raises(BackendError, match="unknown KV cache type 'q3'"):
        memory.estimate(header, replace(options, kv_type="q3"))


def test_layers_go_to_the_accelerator_as_far_as_they_fit(smollm2: Path) -> None:
    header, options = read(smollm2), LoadOptions(slots=1, context=2048)
    assert memory.gpu_layers(header, options, 1 << 40) == 31
    assert memory.gpu_layers(header, options, 0) == 0
    some = [memory.gpu_layers(header, options, free << 20) for free in range(0, 300, 20)]
    assert some == sorted(some)
    assert 0 < some[5] < 31
    for free in (100 << 20, 150 << 20):
        layers = memory.gpu_layers(header, options, free)
        assert memory.device_bytes(header, options, layers) <= free
        assert memory.device_bytes(header, options, layers + 1) > free
    assert memory.gpu_layers(header, replace(options, gpu_layers=7), 1 << 40) == 7


def test_devices() -> None:
    assert devices.host().id == "cpu"
    assert devices.physical_cores() >= 1
    assert all(device.kind == "cuda" for device in devices.nvidia())
    assert all(device.kind == "metal" for device in devices.metal())
