"""The shape of a BERT, read from a GGUF header and checked before anything is allocated."""

from __future__ import annotations

from dataclasses import dataclass

from lhama.backends.pytorch.hyperparameters import (
    BERTS,
    Hyperparameters,
    check_tensors,
    class_outputs,
    positive,
    rope_base,
    vocabulary_size,
)
from lhama.plugins.backend import UnsupportedModel
from lhama.plugins.gguf import GGUF


@dataclass(frozen=True, slots=True)
class BertParameters:
    """Sizes in elements."""

    family: str
    layers: int
    width: int
    hidden: int
    heads: int
    vocab: int
    token_types: int
    context: int
    """Positions it has vectors for, or was trained on."""
    norm_eps: float
    rope_base: float
    pooling: int
    outputs: int
    """Of the classifier that ranks; 0: it gives embeddings."""
    elements: int
    """Of all tensors."""
    largest: int
    """Elements of the largest tensor."""

    @classmethod
    def read(cls, header: GGUF) -> BertParameters:
        """Raises ``UnsupportedModel`` for what the family cannot run, or for nonsense."""
        check_tensors(header, tokenizers=("bert",))
        width = positive(header, "embedding_length")
        heads = positive(header, "attention.head_count")
        if width % heads or header.get_bool(header.key("attention.causal"), False):
            raise UnsupportedModel(f"{heads} heads cannot share {width} dimensions, seeing ahead")
        types = header.tensors.get("token_types.weight")
        return cls(
            family=header.architecture,
            layers=positive(header, "block_count", most=4096),
            width=width,
            hidden=positive(header, "feed_forward_length"),
            heads=heads,
            vocab=vocabulary_size(header, width),
            token_types=types.shape[-1] if types is not None and len(types.shape) == 2 else 0,
            context=positive(header, "context_length"),
            norm_eps=header.get_float(header.key("attention.layer_norm_epsilon"), 1e-12),
            rope_base=rope_base(header, "rope.freq_base"),
            pooling=header.get_int(header.key("pooling_type")),
            outputs=class_outputs(header),
            elements=header.parameter_count,
            largest=max(tensor.elements for tensor in header.tensors.values()),
        )


def read_parameters(header: GGUF) -> Hyperparameters | BertParameters:
    """Raises ``UnsupportedModel`` for a model that no family here runs."""
    if header.architecture in BERTS:
        return BertParameters.read(header)
    return Hyperparameters.read(header)
