"""The families that can be converted: one small file each."""

from __future__ import annotations

from lhama.backends.conversion.config import Config
from lhama.backends.conversion.families.bert import Bert
from lhama.backends.conversion.families.family import Family
from lhama.plugins.backend import UnsupportedModel

_FAMILIES: dict[str, type[Family]] = {
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
        known = ", ".join(_FAMILIES)
        raise UnsupportedModel(f'unsupported architecture "{names[0]}" (known: {known})')
    return _FAMILIES[names[0]](config)
