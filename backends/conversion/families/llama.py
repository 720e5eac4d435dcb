"""Llama, and Mistral, which is one."""

from __future__ import annotations

from pathlib import Path

from gguf import GGUFWriter
from gguf.constants import MODEL_ARCH

from lhama.backends.conversion.families import rope
from lhama.backends.conversion.families.family import Family, Values
from lhama.backends.conversion.permutation import interleave
from lhama.plugins.backend import UnsupportedModel

_THETA = 10_000.0


class Llama(Family):
    arch = MODEL_ARCH.LLAMA

    @property
    def heads(self) -> int:
        return self.config.count("num_attention_heads", "n_head")

    @property
    def key_heads(self) -> int:
        return self.config.count("num_key_value_heads", default=self.heads)

    @property
    def head_size(self) -> int:
        size = self.config.count("head_dim", default=0)
        return size or self.config.count("hidden_size", "n_embd") // max(1, self.heads)

    def describe(self, writer: GGUFWriter, folder: Path) -> None:
        super().describe(writer, folder)
        config = self.config
        if config.count("num_local_experts", default=1) > 1:
            raise UnsupportedModel("models with experts are not converted yet")
        writer.add_head_count_kv(self.key_heads)
        writer.add_layer_norm_rms_eps(config.number("rms_norm_eps"))
        writer.add_vocab_size(config.count("vocab_size"))
        writer.add_rope_dimension_count(self.head_size)
        if "head_dim" in config:
            writer.add_key_length(self.head_size)
            writer.add_value_length(self.head_size)
        writer.add_rope_freq_base(rope.base(config, _THETA))
        rope.describe(config, writer)

    def own_name(self, name: str) -> str | None:
        if name.endswith(".rotary_emb.inv_freq"):
            return None
        if name == "lm_head.weight" and self.config.flag("tie_word_embeddings", default=False):
            return None  # the embedding once more
        return name

    def change(self, name: str, values: Values) -> Values:
        part = name.split(".")[-2]
        if part == "attn_q":
            return interleave(values, self.heads)
        if part == "attn_k":
            return interleave(values, self.key_heads)
        return values

    def extra(self) -> dict[str, Values]:
        theta = rope.base(self.config, _THETA)
        factors = rope.llama3_factors(self.config, self.head_size, theta)
        return {} if factors is None else {"rope_freqs.weight": factors}
