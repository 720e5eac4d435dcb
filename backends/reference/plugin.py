"""Registers the reference backend, on which scheduling and faults are tested."""

from __future__ import annotations

import time
from collections.abc import Callable

from lhama.backends.reference.model import ARCHITECTURE, read_behaviour
from lhama.plugins import gguf
from lhama.plugins.backend import (
    API_VERSION,
    Backend,
    BackendError,
    Device,
    Engine,
    LoadOptions,
    MemoryEstimate,
    ModelFiles,
    OutOfMemory,
    Probe,
    Progress,
    Support,
    UnsupportedModel,
)
from lhama.plugins.hookspecs import hookimpl


class ReferenceBackend:
    """Runs models of architecture ``reference`` and no others."""

    name = "reference"
    api_version = API_VERSION

    def probe(self) -> Probe:
        return Probe((Device("cpu", "cpu", "reference", 0, 0),), version="1")

    def supports(self, model: ModelFiles) -> Support:
        architecture = gguf.read(model.weights).architecture
        if architecture != ARCHITECTURE:
            return Support(0, f"runs test models only, not {architecture!r}")
        return Support(100, "nobody else runs test models")

    def estimate(self, model: ModelFiles, options: LoadOptions) -> MemoryEstimate:
        return MemoryEstimate(128, options.slots * options.context * 8, 0)

    def load(self, model: ModelFiles, options: LoadOptions, progress: Progress) -> Engine:
        from lhama.backends.reference.engine import ReferenceEngine

        support = self.supports(model)
        if not support.score:
            raise UnsupportedModel(support.reason)
        behaviour = read_behaviour(model.weights)
        time.sleep(behaviour.load_us / 1e6)
        if behaviour.fault == "load":
            raise BackendError("a fault in load was asked for")
        if 0 < behaviour.memory_context < options.context:
            raise OutOfMemory(f"a context of {options.context} tokens was made not to fit")
        progress(1.0, "hashing")
        return ReferenceEngine(behaviour, options)


@hookimpl
def lhama_register_backends(register: Callable[[Backend], None]) -> None:
    register(ReferenceBackend())
