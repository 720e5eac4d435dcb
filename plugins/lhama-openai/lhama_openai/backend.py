"""What lhama asks before it loads: which servers there are, and whether a model is of one."""

from __future__ import annotations

from lhama.plugins import gguf
from lhama.plugins.backend import (
    BackendError,
    Device,
    LoadOptions,
    MemoryEstimate,
    ModelFiles,
    Probe,
    Progress,
    Support,
    UnsupportedModel,
)
from lhama.plugins.text import TextEngine
from lhama_openai import settings

ARCHITECTURE = "openai"
SERVER, MODEL, CONTEXT = "openai.server", "openai.model", "openai.context_length"
"""What a model's file says: the server's name, the model's name there, and its context."""


class OpenAIBackend:
    """Models of other servers."""

    name = "openai"
    api_version = 1

    def probe(self) -> Probe:
        try:
            known = settings.servers()
        except BackendError as error:
            return Probe(problem=str(error))
        if not known:
            return Probe(problem="no server is set up: see the README of lhama-openai")
        return Probe(tuple(Device(s.name, "cpu", s.url, 0, 0) for s in known.values()))

    def supports(self, model: ModelFiles) -> Support:
        header = gguf.read(model.weights)
        if header.architecture != ARCHITECTURE:
            return Support(0, "serves models made by 'lhama-openai add'")
        server = header.get_str(SERVER)
        if server not in settings.servers():
            variable = f"LHAMA_OPENAI_{server.upper().replace('-', '_')}_URL"
            return Support(0, f"the server {server!r} is not set up here: set {variable}")
        return Support(100)

    def estimate(self, model: ModelFiles, options: LoadOptions) -> MemoryEstimate:
        return MemoryEstimate(0, 0, 64 << 20)  # a Python process

    def load(self, model: ModelFiles, options: LoadOptions, progress: Progress) -> TextEngine:
        from lhama_openai.engine import OpenAIEngine

        support = self.supports(model)
        if not support.score:
            raise UnsupportedModel(support.reason)
        header = gguf.read(model.weights)
        server = settings.servers()[header.get_str(SERVER)]
        return OpenAIEngine(server, header.get_str(MODEL), header.get_int(CONTEXT, options.context))
