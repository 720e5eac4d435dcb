"""What lhama asks before it loads: what is there, which models, how much memory."""

from __future__ import annotations

from lhama.plugins import gguf
from lhama.plugins.backend import (
    BackendError,
    Device,
    Engine,
    LoadOptions,
    MemoryEstimate,
    ModelFiles,
    Probe,
    Progress,
    Support,
    UnsupportedModel,
)

ARCHITECTURE = "ngram"
TEXT, SUFFIXES = "ngram.text", "ngram.suffixes"
"""The model's two tensors."""


class NgramBackend:
    """Runs models that ``lhama-ngram`` has trained."""

    name = "ngram"
    api_version = 1

    def probe(self) -> Probe:
        return Probe((Device("cpu", "cpu", "suffix arrays", 0, 0),), version="1.0")

    def supports(self, model: ModelFiles) -> Support:
        header = gguf.read(model.weights)
        if header.architecture != ARCHITECTURE:
            return Support(0, f"runs models made by lhama-ngram, not {header.architecture!r}")
        if not {TEXT, SUFFIXES} <= header.tensors.keys():
            return Support(0, "the file lacks the text or its suffixes: train it again")
        return Support(100)

    def estimate(self, model: ModelFiles, options: LoadOptions) -> MemoryEstimate:
        tensors = gguf.read(model.weights).tensors.values()
        cache = options.slots * options.context * 8  # a list's pointers
        return MemoryEstimate(sum(tensor.nbytes for tensor in tensors), cache, 0)

    def load(self, model: ModelFiles, options: LoadOptions, progress: Progress) -> Engine:
        from lhama_ngram.engine import NgramEngine
        from lhama_ngram.model import Model

        support = self.supports(model)
        if not support.score:
            raise UnsupportedModel(support.reason)
        progress(0.0, "mapping")
        try:
            weights = Model(model.weights)
        except (OSError, ValueError) as error:
            raise BackendError(f"the model cannot be read: {error}") from error
        progress(1.0, "ready")
        return NgramEngine(weights, options)
