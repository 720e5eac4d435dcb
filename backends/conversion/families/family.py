"""What a family of models says about itself, so that its checkpoints can be converted."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, TypeAlias

import numpy as np
from gguf import GGUFWriter
from gguf.constants import MODEL_ARCH

from lhama.backends.conversion import vocabulary
from lhama.backends.conversion.config import Config
from lhama.backends.conversion.vocabulary import Vocabulary

Values: TypeAlias = np.ndarray[Any, Any]


class Family:
    """One checkpoint's hyperparameters and the rules for its tensors."""

    arch: ClassVar[MODEL_ARCH]

    def __init__(self, config: Config) -> None:
        self.config = config
        self.blocks = config.count("num_hidden_layers", "n_layers", "n_layer")

    def describe(self, writer: GGUFWriter, folder: Path) -> None:
        """Write the hyperparameters. Raises ``UnsupportedModel`` for missing and odd ones."""
        config = self.config
        writer.add_block_count(self.blocks)
        writer.add_context_length(config.count("max_position_embeddings", "n_ctx"))
        writer.add_embedding_length(config.count("hidden_size", "n_embd"))
        writer.add_feed_forward_length(config.count("intermediate_size", "n_inner"))
        writer.add_head_count(config.count("num_attention_heads", "n_head"))

    def vocabulary(self, folder: Path) -> Vocabulary:
        return vocabulary.read(folder)

    def own_name(self, name: str) -> str | None:
        """A tensor's name as this family knows it; ``None`` for one that is of no use."""
        return name

    def change(self, name: str, values: Values) -> Values:
        """A tensor (of that GGUF name) as the engines want it. BF16 comes as ``uint16``."""
        return values

    def extra(self) -> dict[str, Values]:
        """Tensors that are computed, not copied, by GGUF name."""
        return {}
