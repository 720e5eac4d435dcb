"""What PyTorch can run here; light enough for the daemon, imports torch only to load."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from functools import lru_cache
from pathlib import Path
from typing import Final

from lhama.backends import devices
from lhama.backends.openmp import spin_briefly
from lhama.backends.pytorch import memory
from lhama.backends.pytorch.bert_parameters import read_parameters
from lhama.backends.pytorch.cuda import support
from lhama.backends.pytorch.hyperparameters import Hyperparameters
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

_NEEDED: Final = ("torch", "numpy", "gguf", "tokenizers")


class PyTorchBackend:
    """``lhama.plugins.backend.Backend`` on PyTorch: CPU, CUDA and Apple's GPU."""

    name = "pytorch"
    api_version = API_VERSION

    def probe(self) -> Probe:
        problem = _missing()
        if problem:
            return Probe(problem=problem)
        version = importlib.metadata.version("torch")
        return Probe((devices.host(), *_accelerators()), version=version)

    def supports(self, model: ModelFiles) -> Support:
        problem = _missing()
        if problem:
            return Support(0, problem)
        if model.projectors:
            return Support(0, "reads text only: pictures are llama.cpp's to see")
        try:
            header = _header(model)
            shape = read_parameters(header)
        except BackendError as error:
            return Support(0, str(error))
        cards = [device for device in _accelerators() if device.kind == "cuda"]
        if not cards:
            return Support(
                50, "float32 on a processor: right, and measured to be slower than llama.cpp"
            )
        capability = devices.compute_capability(cards[0])
        return support.judge(header, shape, capability, model.adapters)

    def estimate(self, model: ModelFiles, options: LoadOptions) -> MemoryEstimate:
        device, header = choose(options), _header(model)
        shape = read_parameters(header)
        if device.kind == "cuda" and isinstance(shape, Hyperparameters):
            capability = devices.compute_capability(device)
            if not support.refusal(header, shape, options, capability, model.adapters):
                return support.estimate(header, shape, options)
        return memory.estimate(shape, options, device.kind)

    def load(self, model: ModelFiles, options: LoadOptions, progress: Progress) -> Engine:
        verdict = self.supports(model)
        if not verdict.score:
            raise UnsupportedModel(verdict.reason)
        progress(0.0, "reading the header")
        header = _header(model, vocabulary=True)
        spin_briefly()
        from lhama.backends.pytorch.loader import load

        return load(header, options, choose(options), progress, model.adapters)


def choose(options: LoadOptions) -> Device:
    """The device a model goes to: the accelerator asked for, or the processor."""
    accelerators = _accelerators()
    if options.gpu_layers == 0 or not accelerators:
        return devices.host()
    if not 0 <= options.main_gpu < len(accelerators):
        raise BackendError(f"there is no GPU {options.main_gpu}: {len(accelerators)} found")
    return accelerators[options.main_gpu]


def _missing() -> str:
    """What is not installed, in words; empty if everything is. Imports nothing."""
    absent = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if not absent:
        return ""
    verb = "is" if len(absent) == 1 else "are"
    return f"{', '.join(absent)} {verb} not installed: pip install 'lhama[pytorch]'"


def _header(model: ModelFiles, *, vocabulary: bool = False) -> GGUF:
    """The file's header. Raises ``UnsupportedModel`` where it is none, or cut short."""
    try:
        return read(model.weights, vocabulary=vocabulary)
    except GGUFError as error:
        raise UnsupportedModel(f"{model.name}: {error}") from error
    except OSError as error:
        raise BackendError(f"cannot read {model.weights}: {error.strerror}") from error


def _accelerators() -> list[Device]:
    """The devices this build of PyTorch was made for."""
    return devices.nvidia() if _built_for_cuda() else devices.metal()


@lru_cache(maxsize=1)
def _built_for_cuda() -> bool:
    """Whether the package ships its CUDA half, seen by its file name."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return False
    return any((Path(spec.origin).parent / "lib").glob("*torch_cuda*"))
