"""llama.cpp's quantiser as the core sees it: light, loads the native half only to work."""

from __future__ import annotations

from typing import Final

from lhama.backends.llamacpp.architectures import KNOWN
from lhama.backends.llamacpp.backend import MISSING, installed
from lhama.plugins import gguf
from lhama.plugins.backend import API_VERSION, BackendError, Progress, Support
from lhama.plugins.gguf import GGUFError
from lhama.plugins.tools import COPY

FILE_TYPES: Final = {
    "F32": 0,
    "F16": 1,
    "Q8_0": 7,
    "Q4_K_S": 14,
    "Q4_K_M": 15,
    "BF16": 32,
    COPY: 0,
}
"""``enum llama_ftype`` by name: what Ollama offers."""

_OTHER_PARTS: Final = ("a.", "mm.", "mtp.", "s.", "v.")
"""Tensors of encoders and draft heads that Ollama's older files hold beside the text model's:
llama.cpp does not know them, and a copy that it makes may lose them."""


class LlamaCppQuantizer:
    """``lhama.plugins.tools.Quantizer`` on ``llama_model_quantize``."""

    name = "llamacpp"
    api_version = API_VERSION

    def supports(self, source: str, kind: str) -> Support:
        if not installed():
            return Support(0, MISSING)
        if kind not in FILE_TYPES:
            return Support(0, f"llama.cpp's quantizer is not asked for {kind} here")
        try:
            header = gguf.read(source)
        except (GGUFError, OSError) as error:
            return Support(0, str(error))
        if header.architecture not in KNOWN:
            return Support(0, f"llama.cpp does not know the architecture '{header.architecture}'")
        if any(name.startswith(_OTHER_PARTS) for name in header.tensors):
            return Support(0, "the file holds more than a text model")
        return Support(50)

    def quantize(self, source: str, target: str, kind: str, progress: Progress) -> None:
        support = self.supports(source, kind)
        if not support.score:
            raise BackendError(support.reason)
        from lhama.backends.llamacpp.quantize import quantize

        quantize(source, target, kind, gguf.read(source).architecture, progress)
