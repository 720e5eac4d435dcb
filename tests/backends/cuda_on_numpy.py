"""The CUDA engine on a processor, its kernels run by ``gluon_on_numpy``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import gluon_on_numpy
import pytest
import torch

from lhama.backends.pytorch.hyperparameters import Hyperparameters
from lhama.backends.pytorch.tokenizer import GGUFTokenizer
from lhama.plugins.backend import LoadOptions, Residency
from lhama.plugins.gguf import read

if TYPE_CHECKING:
    from lhama.backends.pytorch.cuda.engine import CudaEngine

if not gluon_on_numpy.install():
    pytest.skip("Triton is installed: its kernels are tested on a card", allow_module_level=True)


def engine_of(
    path: Path, *, slots: int = 3, context: int = 192, kv_type: str = "f16"
) -> CudaEngine:
    from lhama.backends.pytorch.cuda.loader import load

    header = read(path, vocabulary=True)
    options = LoadOptions(slots=slots, context=context, batch=128, kv_type=kv_type)
    return load(
        header,
        Hyperparameters.read(header),
        options,
        torch.device("cpu"),
        GGUFTokenizer(header),
        Residency("cpu", 0, 0),
        lambda nbytes: None,
        lambda what: None,
    )
