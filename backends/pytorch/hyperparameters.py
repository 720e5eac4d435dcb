"""A model's shape, read from a GGUF header and checked before anything is allocated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from lhama.plugins.backend import UnsupportedModel
from lhama.plugins.gguf import GGUF

FAMILIES: Final = ("gemma-embedding", "gemma3", "llama", "qwen2", "qwen3")
BERTS: Final = ("bert", "nomic-bert")
"""Architectures that ``lhama.backends.pytorch.families`` has modules for."""

ENCODERS: Final = (*BERTS, "gemma-embedding")
"""Those that see a text both ways and do not generate."""

_TYPE_NAMES: Final = """
    F32 F16 BF16 Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q2_K Q3_K Q4_K Q5_K Q6_K
    IQ1_S IQ1_M IQ2_XXS IQ2_XS IQ2_S IQ3_XXS IQ3_S IQ4_NL IQ4_XS TQ1_0 TQ2_0 MXFP4
"""
TENSOR_TYPES: Final = frozenset(_TYPE_NAMES.split())
"""Tensor types whose tables ``gguf.quants`` has."""

TOKENIZERS: Final = ("gpt2", "llama")


@dataclass(frozen=True, slots=True)
class Hyperparameters:
    """Sizes in elements; ``window`` in tokens, 0 for none."""

    family: str
    layers: int
    width: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    context: int
    """Positions the model was trained on."""
    norm_eps: float
    rope_base: float
    rope_scale: float
    """What positions are multiplied with."""
    window: int
    window_pattern: tuple[bool, ...]
    """Which layers see only the window."""
    window_rope_base: float
    logit_softcap: float
    pooling: int
    """How hidden states become one vector: 0 not said, 1 mean, 2 first, 3 last; 4 the last one's
    classes."""
    outputs: int
    """Of the classifier that ranks; 0: there is none."""
    elements: int
    """Of all tensors."""
    largest: int
    """Elements of the largest tensor."""

    @classmethod
    def read(cls, header: GGUF) -> Hyperparameters:
        """Raises ``UnsupportedModel`` for what the families cannot run, or for nonsense."""
        family = header.architecture
        if family not in FAMILIES:
            known = ", ".join(sorted(FAMILIES + BERTS))
            name = family or "none"
            raise UnsupportedModel(
                f"the PyTorch backend does not know the architecture {name!r} (it knows {known})"
            )
        check_tensors(header)
        layers = positive(header, "block_count", most=4096)
        width = positive(header, "embedding_length")
        heads = positive(header, "attention.head_count")
        kv_heads = positive(header, "attention.head_count_kv", heads)
        head_dim = positive(header, "attention.key_length", width // heads)
        if header.get_int(header.key("attention.value_length"), head_dim) != head_dim:
            raise UnsupportedModel("keys and values of different lengths are not supported")
        if heads % kv_heads:
            raise UnsupportedModel(f"{heads} heads cannot share {kv_heads} key-value heads")
        rotated = header.get_int(header.key("rope.dimension_count"), head_dim)
        if rotated != head_dim or head_dim % 2:
            raise UnsupportedModel(f"RoPE over {rotated} of {head_dim} dimensions")
        window = header.get_int(header.key("attention.sliding_window"))
        vocab = vocabulary_size(header, width)
        return cls(
            family=family,
            layers=layers,
            width=width,
            hidden=positive(header, "feed_forward_length"),
            heads=heads,
            kv_heads=kv_heads,
            head_dim=head_dim,
            vocab=vocab,
            context=positive(header, "context_length"),
            norm_eps=header.get_float(header.key("attention.layer_norm_rms_epsilon"), 1e-5),
            rope_base=rope_base(header, "rope.freq_base"),
            rope_scale=_rope_scale(header),
            window=window,
            window_pattern=_window_pattern(header, layers) if window else (False,) * layers,
            window_rope_base=rope_base(header, "rope.freq_base_swa"),
            logit_softcap=header.get_float(header.key("final_logit_softcapping")),
            pooling=_pooling(header),
            outputs=class_outputs(header),
            elements=header.parameter_count,
            largest=max(tensor.elements for tensor in header.tensors.values()),
        )


def check_tensors(header: GGUF, tokenizers: Sequence[str] = TOKENIZERS) -> None:
    """Raises ``UnsupportedModel`` for tensors or a tokenizer that cannot be read."""
    for tensor in header.tensors.values():
        if tensor.type_name not in TENSOR_TYPES:
            raise UnsupportedModel(f"tensors of type {tensor.type_name} are not supported")
        if "_exps." in tensor.name or "ffn_gate_inp" in tensor.name:
            raise UnsupportedModel("mixtures of experts are not supported by the PyTorch backend")
    model = header.get_str("tokenizer.ggml.model")
    if model not in tokenizers:
        raise UnsupportedModel(f"the PyTorch backend does not know the tokenizer {model!r}")


def vocabulary_size(header: GGUF, width: int) -> int:
    """Tokens that have an embedding of ``width``. Raises ``UnsupportedModel`` unless all have."""
    embedding = header.tensors.get("token_embd.weight")
    if embedding is None or len(embedding.shape) != 2 or embedding.shape[0] != width:
        raise UnsupportedModel("the token embedding is missing or has a wrong shape")
    vocab = embedding.shape[1]
    tokens = header.array_length("tokenizer.ggml.tokens")
    if tokens != vocab:
        raise UnsupportedModel(f"{tokens} tokens in the vocabulary, {vocab} embeddings")
    return vocab


def positive(header: GGUF, name: str, default: int = 0, most: int = 1 << 32) -> int:
    """A size that all layers share. Raises ``UnsupportedModel`` where there is none."""
    key = header.key(name)
    if header.get_list(key):
        raise UnsupportedModel(f"{key} differs between layers, which is not supported")
    value = header.get_int(key, default)
    if not 0 < value <= most:
        raise UnsupportedModel(f"{key} is missing or makes no sense")
    return value


def rope_base(header: GGUF, name: str) -> float:
    """Raises ``UnsupportedModel`` for nonsense."""
    base = header.get_float(header.key(name), 10000.0)
    if not base > 0:
        raise UnsupportedModel(f"{header.key(name)} makes no sense: {base}")
    return base


def _rope_scale(header: GGUF) -> float:
    kind = header.get_str(header.key("rope.scaling.type"), "linear")
    if kind not in ("linear", "none"):
        raise UnsupportedModel(f"RoPE scaling {kind!r} is not supported by the PyTorch backend")
    factor = header.get_float(header.key("rope.scaling.factor"))
    factor = factor or header.get_float(header.key("rope.scale_linear"))
    return 1.0 / factor if factor > 0 and kind == "linear" else 1.0


def _window_pattern(header: GGUF, layers: int) -> tuple[bool, ...]:
    """Gemma 3 looks at everything in each sixth layer, unless the file says otherwise."""
    key = header.key("attention.sliding_window_pattern")
    listed = header.get_list(key)
    if listed:
        if len(listed) < layers:
            raise UnsupportedModel(f"{key} has {len(listed)} entries for {layers} layers")
        return tuple(bool(entry) for entry in listed[:layers])
    period = header.get_int(key, 6)
    return tuple(period == 0 or layer % period < period - 1 for layer in range(layers))


def _pooling(header: GGUF) -> int:
    kind = header.get_int(header.key("pooling_type"))
    if kind not in range(5):
        raise UnsupportedModel(f"pooling type {kind} is not supported by the PyTorch backend")
    return kind


def class_outputs(header: GGUF) -> int:
    """Outputs of the classifier: of its last layer, or of its only one."""
    for name in ("cls.output.weight", "cls.weight"):
        if (tensor := header.tensors.get(name)) is not None:
            return tensor.shape[1] if len(tensor.shape) == 2 else 1
    return 0
