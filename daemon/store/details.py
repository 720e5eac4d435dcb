"""What is said of a model everywhere: its details, and what it can do."""

from __future__ import annotations

import msgspec

from lhama.daemon.errors import StoreError
from lhama.daemon.store import configblob
from lhama.daemon.store.model import StoredModel


class Details(msgspec.Struct):
    """Of ``/api/show`` and ``/api/ps``."""

    parent_model: str
    format: str
    family: str
    families: list[str] | None
    parameter_size: str
    quantization_level: str


class ListedDetails(Details, omit_defaults=True):
    """Of ``/api/tags``."""

    context_length: int = 0
    embedding_length: int = 0


def details(model: StoredModel, *, parent: bool = True) -> Details:
    """A model's details; ``/api/ps`` leaves the parent out."""
    config = model.config
    return Details(
        parent_model=model.parent if parent else "",
        format=config.model_format,
        family=config.model_family,
        families=config.model_families,
        parameter_size=config.model_type,
        quantization_level=_quantization(model),
    )


def listed_details(model: StoredModel) -> ListedDetails:
    """As ``details``, with the lengths of context and embedding."""
    config, lengths = model.config, (0, 0)
    if not config.remote_host:
        try:
            header = model.header()
            lengths = (
                header.get_int(header.key("context_length")),
                header.get_int(header.key("embedding_length")),
            )
        except StoreError:
            pass  # a damaged model is listed, so that it can be seen and deleted
    return ListedDetails(
        **msgspec.structs.asdict(details(model)),
        context_length=config.context_length or lengths[0],
        embedding_length=config.embedding_length or lengths[1],
    )


def _quantization(model: StoredModel) -> str:
    """The config's word, repaired from the GGUF where it has none."""
    level = model.config.file_type
    if level not in ("", "unknown"):
        return level
    try:
        repaired = configblob.file_type_name(model.header().get_int("general.file_type"))
    except StoreError:
        return level
    return level if repaired == "unknown" else repaired
