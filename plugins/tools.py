"""The contract for what plugins do to model files besides running them: quantise and convert.

The daemon runs a tool in a child process of its own, with a clean environment, one job each; what
a tool does to that process is nobody else's trouble. Both are light to create (the daemon does it
at every start): native code is imported by the method that does the work. ``api_version`` is that
of ``lhama.plugins.backend``.
"""

from __future__ import annotations

from typing import Final, Protocol

from lhama.plugins.backend import Progress, Support

COPY: Final = "COPY"
"""In place of a quantisation: the same tensors in a file written anew, and so validated."""


class Quantizer(Protocol):
    """Writes a GGUF file again, its tensors in other types."""

    @property
    def name(self) -> str:
        """Short and unique among quantisers."""
        ...

    @property
    def api_version(self) -> int: ...

    def supports(self, source: str, kind: str) -> Support:
        """Whether the GGUF file at ``source`` can be written as ``kind``. Reads headers only.

        ``kind`` is ``COPY`` or the name of a file type: ``F16``, ``Q8_0``, ``Q4_K_M`` …
        """
        ...

    def quantize(self, source: str, target: str, kind: str, progress: Progress) -> None:
        """Write ``target``, an empty file. Every tensor of ``source`` lies within its file: that
        was checked. The shards of a split model lie beside the first, under their usual names;
        one file is written of them.

        Raises ``UnsupportedModel``, ``BackendError``, ``OSError``.
        """
        ...


class Converter(Protocol):
    """Makes GGUF files of models in another format."""

    @property
    def name(self) -> str:
        """Short and unique among converters."""
        ...

    @property
    def api_version(self) -> int: ...

    def supports(self, folder: str) -> Support:
        """Whether ``folder`` holds something to convert, by its files' names."""
        ...

    def convert(self, folder: str, target: str, progress: Progress) -> None:
        """Write the model in ``folder``, laid out as on Hugging Face, to ``target``, an empty file.

        Raises ``UnsupportedModel``, ``BackendError``, ``OSError``.
        """
        ...

    def convert_adapter(self, folder: str, base: str, target: str, progress: Progress) -> None:
        """As ``convert``, for a LoRA adapter of the model whose GGUF file is ``base``."""
        ...
