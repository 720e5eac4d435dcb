"""What a backend says of itself, of this machine and of models, before anything is loaded."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from lhama.plugins import gguf
from lhama.plugins.backend import (
    API_VERSION,
    BackendError,
    LoadOptions,
    MemoryEstimate,
    ModelFiles,
    Probe,
    Support,
)
from lhama.plugins.manager import discover
from lhama.plugins.testing.subject import Subject
from lhama.plugins.testing.suite import Suite, need

NATIVE = ("torch", "llama_cpp", "numpy", "jax", "tensorflow", "onnxruntime", "mlx", "triton")

IMPORTS = """
import importlib, sys
module = importlib.import_module({module!r})
backend = getattr(module, {name!r}, None)
if {probe} and backend is not None:
    backend().probe()
print(*sorted({native!r} & sys.modules.keys()))
"""


def imported(backend: object, *, probe: bool) -> str:
    """Native packages that a process has which imported the backend's module and nothing else."""
    kind = type(backend)
    script = IMPORTS.format(
        module=kind.__module__, name=kind.__qualname__, probe=probe, native=set(NATIVE)
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


class Contract(Suite):
    """``probe``, ``supports``, ``estimate``, ``load``'s refusals."""

    @pytest.fixture
    def foreign(self, tmp_path: Path) -> ModelFiles:
        """A sound GGUF file of an architecture nobody knows."""
        path = tmp_path / "foreign.gguf"
        tensors = {"token_embd.weight": ((8, 4), "F32", bytes(8 * 4 * 4))}
        gguf.write(path, {"general.architecture": "nobody-knows-this"}, tensors)
        return ModelFiles("foreign", str(path))

    def test_the_name_is_short_and_plain(self, subject: Subject) -> None:
        assert re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,31}", subject.backend.name)

    def test_the_contract_is_of_this_version(self, subject: Subject) -> None:
        assert subject.backend.api_version == API_VERSION

    def test_an_entry_point_brings_it(self, subject: Subject) -> None:
        need(subject.registered, "an installed distribution")
        registry = discover()
        assert subject.backend.name in registry.backends, registry.reports

    def test_its_module_imports_nothing_native(self, subject: Subject) -> None:
        assert imported(subject.backend, probe=False) == ""

    def test_probing_imports_nothing_native(self, subject: Subject) -> None:
        assert imported(subject.backend, probe=True) == ""

    def test_probe_finds_devices_here(self, subject: Subject) -> None:
        found = subject.backend.probe()
        assert isinstance(found, Probe)
        assert found.problem == ""
        assert found.devices
        assert isinstance(found.version, str)

    def test_devices_are_sane(self, subject: Subject) -> None:
        devices = subject.backend.probe().devices
        assert len({device.id for device in devices}) == len(devices)
        for device in devices:
            assert device.kind in ("cpu", "cuda", "metal")
            assert device.id
            assert device.name
            assert 0 <= device.free_bytes <= device.total_bytes

    def test_probe_may_be_asked_again(self, subject: Subject) -> None:
        first, second = subject.backend.probe(), subject.backend.probe()
        assert [d.id for d in first.devices] == [d.id for d in second.devices]

    def test_it_supports_its_model(self, subject: Subject) -> None:
        support = subject.backend.supports(subject.model)
        assert isinstance(support, Support)
        assert 0 < support.score <= 100

    def test_support_does_not_waver(self, subject: Subject) -> None:
        assert subject.backend.supports(subject.model) == subject.backend.supports(subject.model)

    def test_a_foreign_model_is_refused_with_a_reason(
        self, subject: Subject, foreign: ModelFiles
    ) -> None:
        support = subject.backend.supports(foreign)
        assert support.score == 0
        assert support.reason

    def test_a_foreign_model_is_not_loaded(self, subject: Subject, foreign: ModelFiles) -> None:
        with pytest.raises(BackendError, match=r"\w"):
            subject.load(foreign)

    def test_the_estimate_is_sane(self, subject: Subject) -> None:
        estimate = subject.backend.estimate(subject.model, subject.options)
        assert isinstance(estimate, MemoryEstimate)
        parts = (estimate.weights_bytes, estimate.kv_bytes, estimate.compute_bytes)
        assert all(isinstance(part, int) and part >= 0 for part in parts)
        assert estimate.total_bytes > 0
        assert 0 <= estimate.device_bytes <= estimate.total_bytes

    def test_more_slots_and_context_are_never_estimated_smaller(self, subject: Subject) -> None:
        small, wide, long = (
            subject.backend.estimate(subject.model, LoadOptions(slots=slots, context=context))
            for slots, context in ((1, 512), (8, 512), (1, 4096))
        )
        assert small.total_bytes <= wide.total_bytes
        assert small.total_bytes <= long.total_bytes

    def test_loading_tells_its_progress(self, subject: Subject) -> None:
        told: list[tuple[float, str]] = []
        engine = subject.backend.load(
            subject.model, subject.options, lambda share, what: told.append((share, what))
        )
        engine.close()
        shares = [share for share, _ in told]
        assert shares == sorted(shares)
        assert all(0 <= share <= 1 for share in shares)
        assert all(isinstance(what, str) for _, what in told)
