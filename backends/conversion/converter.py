"""The converter as the core sees it: light, loads numpy and gguf only to convert."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from lhama.plugins.backend import API_VERSION, BackendError, Progress, Support

_NEEDS = ("gguf", "numpy", "sentencepiece")
_MISSING = "safetensors are converted by the gguf package: pip install 'lhama[convert]'"


class SafetensorsConverter:
    """``lhama.plugins.tools.Converter`` for Hugging Face's folders of safetensors."""

    name = "safetensors"
    api_version = API_VERSION

    def supports(self, folder: str) -> Support:
        if not all(importlib.util.find_spec(name) for name in _NEEDS):
            return Support(0, _MISSING)
        if not any(Path(folder).glob("*.safetensors")):
            return Support(0, "unknown tensor format: there are no safetensors files")
        return Support(50)

    def convert(self, folder: str, target: str, progress: Progress) -> None:
        self._check(folder)
        from lhama.backends.conversion import model

        model.convert(Path(folder), Path(target), progress)

    def convert_adapter(self, folder: str, base: str, target: str, progress: Progress) -> None:
        self._check(folder)
        from lhama.backends.conversion import adapter

        adapter.convert(Path(folder), Path(base), Path(target), progress)

    def _check(self, folder: str) -> None:
        support = self.supports(folder)
        if not support.score:
            raise BackendError(support.reason)
