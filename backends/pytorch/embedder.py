"""One loaded embedding model under PyTorch."""

from __future__ import annotations

from functools import partial

import torch

from lhama.backends.embedder import Embedder
from lhama.backends.pytorch.encoders.encoder import Encoder
from lhama.backends.pytorch.handle import told
from lhama.backends.pytorch.tokenizer import GGUFTokenizer
from lhama.plugins.backend import Limits, Residency


class PyTorchEmbedder(Embedder):
    """Embeds by an encoder."""

    def __init__(
        self,
        encoder: Encoder,
        tokenizer: GGUFTokenizer,
        limits: Limits,
        residency: Residency,
        threads: int,
    ) -> None:
        super().__init__(tokenizer, limits, residency, partial(torch.set_num_threads, threads))
        self._encoder = encoder

    def vectors(self, inputs: list[tuple[int, ...]]) -> list[bytes]:
        with told(), torch.inference_mode():
            found = self._encoder.vectors(inputs).float().cpu().numpy()
        return [vector.tobytes() for vector in found]

    def close(self) -> None:
        super().close()
        del self._encoder
        if self.residency.device.startswith("cuda"):
            torch.cuda.empty_cache()
