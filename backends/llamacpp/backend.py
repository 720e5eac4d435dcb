"""What llama.cpp can run here; light enough for the daemon, loads the native half only to load."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from functools import lru_cache
from pathlib import Path

from lhama.backends import devices
from lhama.backends.llamacpp import memory
from lhama.backends.llamacpp.architectures import KNOWN
from lhama.backends.openmp import spin_briefly
from lhama.plugins.backend import (
    API_VERSION,
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
from lhama.plugins.gguf import GGUF, GGUFError, read

MISSING = "llama-cpp-python is not installed: pip install 'lhama[llamacpp]'"

AHEAD_ON_PROCESSORS = "measured to be faster than PyTorch on a processor"


class LlamaCppBackend:
    """``lhama.plugins.backend.Backend`` on llama-cpp-python's low-level API."""

    name = "llamacpp"
    api_version = API_VERSION

    def probe(self) -> Probe:
        if not installed():
            return Probe(problem=MISSING)
        version = importlib.metadata.version("llama-cpp-python")
        return Probe((devices.host(), *_accelerators()), version=version)

    def supports(self, model: ModelFiles) -> Support:
        if not installed():
            return Support(0, MISSING)
        try:
            header = _header(model)
        except BackendError as error:
            return Support(0, str(error))
        if header.architecture not in KNOWN:
            name = header.architecture or "none"
            return Support(0, f"llama.cpp does not know the architecture {name!r}")
        if not _accelerators() and not devices.nvidia():
            return Support(80, AHEAD_ON_PROCESSORS)
        if devices.nvidia() and not _has_library("cuda"):
            return Support(55, "this build of llama.cpp cannot use the NVIDIA card")
        return Support(80)

    def estimate(self, model: ModelFiles, options: LoadOptions) -> MemoryEstimate:
        accelerators = _accelerators()
        taken = memory.file_bytes(model.projectors)
        free = sum(d.free_bytes for d in accelerators) - taken if accelerators else None
        return memory.estimate(_header(model), options, free, model.projectors)

    def load(self, model: ModelFiles, options: LoadOptions, progress: Progress) -> Engine:
        if not installed():
            raise BackendError(MISSING)
        support = self.supports(model)
        if not support.score:
            raise UnsupportedModel(support.reason)
        header = _header(model)
        memory.kv_layers(header, options)  # a wrong kv_type is the user's error: say so first
        spin_briefly()
        from lhama.backends.llamacpp.loader import load

        return load(model, header, options, progress)


def installed() -> bool:
    """Whether llama-cpp-python can be imported; does not import it."""
    return importlib.util.find_spec("llama_cpp") is not None


def _header(model: ModelFiles) -> GGUF:
    """The file's header. Raises ``UnsupportedModel`` where it is none, or cut short."""
    try:
        return read(model.weights)
    except GGUFError as error:
        raise UnsupportedModel(f"{model.name}: {error}") from error
    except OSError as error:
        raise BackendError(f"cannot read {model.weights}: {error.strerror}") from error


def _accelerators() -> list[Device]:
    """The devices this build of llama.cpp was made for."""
    if _has_library("cuda"):
        return devices.nvidia()
    if _has_library("metal"):
        return devices.metal()
    return []


@lru_cache
def _has_library(kind: str) -> bool:
    """Whether the package ships ggml's backend of that kind, seen by its file name."""
    spec = importlib.util.find_spec("llama_cpp")
    if spec is None or spec.origin is None:
        return False
    return any((Path(spec.origin).parent / "lib").glob(f"*ggml-{kind}*"))
