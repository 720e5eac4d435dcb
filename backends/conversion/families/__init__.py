"""The families that can be converted: one small file each."""

from __future__ import annotations

from lhama.backends.conversion.config import Config
from lhama.backends.conversion.families.bert import Bert
from lhama.backends.conversion.families.family import Family
from lhama.backends.conversion.families.gemma3 import Gemma3
from lhama.backends.conversion.families.llama import Llama
from lhama.backends.conversion.families.qwen import Qwen2, Qwen3
from lhama.plugins.backend import UnsupportedModel

_FAMILIES: dict[str, type[Family]] = {
    "LlamaForCausalLM": Llama,
    "MistralForCausalLM": Llama,
    "Qwen2ForCausalLM": Qwen2,
    "Qwen3ForCausalLM": Qwen3,
    "Gemma3ForCausalLM": Gemma3,
    "Gemma3ForConditionalGeneration": Gemma3,
    "BertModel": Bert,
    "BertForMaskedLM": Bert,
}
"""By ``architectures`` of ``config.json``."""


def find(config: Config) -> Family:
    """The family that reads this checkpoint. Raises ``UnsupportedModel``."""
    names = config.texts("architectures")
    if not names:
        raise UnsupportedModel("unknown architecture")
    if names[0] not in _FAMILIES:
        raise UnsupportedModel(f'unsupported architecture "{names[0]}"')  # as Ollama has it
    return _FAMILIES[names[0]](config)
