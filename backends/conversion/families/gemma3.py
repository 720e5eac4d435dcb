"""Gemma 3: the language model; of one that sees, the eye is left behind."""

from __future__ import annotations

from pathlib import Path

from gguf import GGUFWriter
from gguf.constants import MODEL_ARCH

from lhama.backends.conversion.config import Config
from lhama.backends.conversion.families import rope
from lhama.backends.conversion.families.family import Family, Values
from lhama.backends.conversion.vocabulary import Vocabulary

_EYE = ("vision_tower.", "multi_modal_projector.", "model.vision_tower.", "model.multi_modal_")


class Gemma3(Family):
    arch = MODEL_ARCH.GEMMA3

    def __init__(self, config: Config) -> None:
        super().__init__(config.section("text_config").over(config))

    def describe(self, writer: GGUFWriter, folder: Path) -> None:
        # What is left out of a config is what transformers' Gemma3TextConfig has it as.
        config = self.config
        head = config.count("head_dim", default=256)
        writer.add_block_count(self.blocks)
        writer.add_context_length(config.count("max_position_embeddings", default=131_072))
        writer.add_embedding_length(config.count("hidden_size"))
        writer.add_feed_forward_length(config.count("intermediate_size"))
        writer.add_head_count(config.count("num_attention_heads", default=8))
        writer.add_head_count_kv(config.count("num_key_value_heads", default=4))
        writer.add_layer_norm_rms_eps(config.number("rms_norm_eps", default=1e-6))
        writer.add_key_length(head)
        writer.add_value_length(head)
        writer.add_rope_freq_base(rope.base(config, 1_000_000.0))
        writer.add_rope_freq_base_swa(rope.local_base(config, 10_000.0))
        writer.add_sliding_window(config.count("sliding_window", default=4096))
        if cap := config.number("final_logit_softcapping", default=0.0):
            writer.add_final_logit_softcapping(cap)
        rope.describe(config, writer)

    def vocabulary(self, folder: Path) -> Vocabulary:
        found = super().vocabulary(folder)
        found.space_prefix = False
        return found

    def own_name(self, name: str) -> str | None:
        if name.startswith(_EYE):
            return None
        for wrapped in ("language_model.model.", "model.language_model."):
            if name.startswith(wrapped):
                name = "model." + name.removeprefix(wrapped)
        # Tied to the embedding, always.
        return None if name.endswith("lm_head.weight") else name

    def change(self, name: str, values: Values) -> Values:
        # transformers multiplies by one more than what is stored.
        return values + values.dtype.type(1) if name.endswith("_norm.weight") else values
