"""A model's shape, read from a GGUF header and checked before anything is allocated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from lhama.backends.pytorch.families import FAMILIES
from lhama.backends.pytorch.families.family import Family
from lhama.plugins.backend import UnsupportedModel
from lhama.plugins.gguf import GGUF

BERTS: Final = ("bert", "nomic-bert")
"""Architectures that ``lhama.backends.pytorch.encoders.bert`` is for."""

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
class Yarn:
    """RoPE beyond the trained context: slow frequencies are scaled, fast ones stay (arXiv
    2309.00071, with llama.cpp's numbers)."""

    context: int
    """Positions before it was stretched."""
    fast: float
    slow: float
    """Turns over that context from which on, and up to which."""


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
    rotated: int
    """Dimensions of a head that RoPE turns, the first ones."""
    experts: int
    """In each MLP; 0: it is a plain one."""
    experts_used: int
    """For one token."""
    expert_hidden: int
    vocab: int
    context: int
    """Positions the model was trained on."""
    norm_eps: float
    rope_base: float
    rope_scale: float
    """What positions are multiplied with."""
    rope_magnitude: float
    """What cosines and sines are multiplied with."""
    yarn: Yarn | None
    rope_context: int
    """Positions up to which ``rope_factors_short`` is for, beyond it is ``rope_factors_long``."""
    window: int
    window_pattern: tuple[bool, ...]
    """Which layers see only the window."""
    window_rope_base: float
    """Of layers with a window, which are not scaled then; 0: they turn as the others."""
    attention_softcap: float
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

    @property
    def inner(self) -> int:
        """Width of an MLP's inner layer, or of an expert's."""
        return self.expert_hidden if self.experts else self.hidden

    @classmethod
    def read(cls, header: GGUF) -> Hyperparameters:
        """Raises ``UnsupportedModel`` for what the families cannot run, or for nonsense."""
        family = FAMILIES.get(header.architecture)
        if family is None:
            known = ", ".join(sorted((*FAMILIES, *BERTS)))
            name = header.architecture or "none"
            raise UnsupportedModel(
                f"the PyTorch backend does not know the architecture {name!r} (it knows {known})"
            )
        check_tensors(header, experts=family.experts)
        layers = positive(header, "block_count", most=4096)
        width = positive(header, "embedding_length")
        hidden = positive(header, "feed_forward_length")
        heads = positive(header, "attention.head_count")
        kv_heads = positive(header, "attention.head_count_kv", heads)
        head_dim = positive(header, "attention.key_length", width // heads)
        if header.get_int(header.key("attention.value_length"), head_dim) != head_dim:
            raise UnsupportedModel("keys and values of different lengths are not supported")
        if heads % kv_heads:
            raise UnsupportedModel(f"{heads} heads cannot share {kv_heads} key-value heads")
        rotated = positive(header, "rope.dimension_count", head_dim)
        if rotated > head_dim or rotated % 2:
            raise UnsupportedModel(f"RoPE over {rotated} of {head_dim} dimensions")
        experts, used = _experts(header)
        context = positive(header, "context_length")
        window = header.get_int(header.key("attention.sliding_window"))
        windows = _windows(header, family, layers) if window else (False,) * layers

        def softcap(name: str, default: float) -> float:
            return header.get_float(header.key(name)) or default

        shape = cls(
            family=family.name,
            layers=layers,
            width=width,
            hidden=hidden,
            heads=heads,
            kv_heads=kv_heads,
            head_dim=head_dim,
            rotated=rotated,
            experts=experts,
            experts_used=used,
            expert_hidden=positive(header, "expert_feed_forward_length", hidden),
            vocab=vocabulary_size(header, width),
            context=context,
            norm_eps=header.get_float(header.key("attention.layer_norm_rms_epsilon"), 1e-5),
            rope_base=rope_base(header, "rope.freq_base"),
            rope_scale=_rope_scale(header),
            rope_magnitude=header.get_float(header.key("rope.scaling.attn_factor"), 1.0),
            yarn=_yarn(header, context),
            rope_context=_original_context(header, context),
            window=window if any(windows) else 0,
            window_pattern=windows,
            window_rope_base=rope_base(header, "rope.freq_base_swa", family.window_rope_base),
            attention_softcap=softcap("attn_logit_softcapping", family.attention_softcap),
            logit_softcap=softcap("final_logit_softcapping", family.logit_softcap),
            pooling=_pooling(header),
            outputs=class_outputs(header),
            elements=header.parameter_count,
            largest=max(tensor.elements for tensor in header.tensors.values()),
        )
        if rotated != head_dim and family.traits(shape).neighbours:
            raise UnsupportedModel(
                f"RoPE over {rotated} of {head_dim} dimensions, neighbours turning together"
            )
        return shape


def check_tensors(
    header: GGUF, tokenizers: Sequence[str] = TOKENIZERS, *, experts: bool = False
) -> None:
    """Raises ``UnsupportedModel`` for tensors or a tokenizer that cannot be read, and for mixtures
    of experts unless they may be."""
    for tensor in header.tensors.values():
        if tensor.type_name not in TENSOR_TYPES:
            raise UnsupportedModel(f"tensors of type {tensor.type_name} are not supported")
        if not experts and ("_exps." in tensor.name or "ffn_gate_inp" in tensor.name):
            raise UnsupportedModel(
                f"mixtures of experts of the architecture {header.architecture!r} are not "
                "supported by the PyTorch backend"
            )
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


def rope_base(header: GGUF, name: str, default: float = 10000.0) -> float:
    """Raises ``UnsupportedModel`` for nonsense."""
    base = header.get_float(header.key(name), default)
    if not (base > 0 or base == default):
        raise UnsupportedModel(f"{header.key(name)} makes no sense: {base}")
    return base


def _rope_scale(header: GGUF) -> float:
    kind = header.get_str(header.key("rope.scaling.type"), "linear")
    if kind not in ("linear", "longrope", "yarn", "none"):
        raise UnsupportedModel(f"RoPE scaling {kind!r} is not supported by the PyTorch backend")
    factor = header.get_float(header.key("rope.scaling.factor"))
    factor = factor or header.get_float(header.key("rope.scale_linear"))
    return 1.0 / factor if factor > 0 and kind != "none" else 1.0


def _yarn(header: GGUF, context: int) -> Yarn | None:
    if header.get_str(header.key("rope.scaling.type")) != "yarn":
        return None
    if header.get_float(header.key("rope.scaling.yarn_log_multiplier")):
        raise UnsupportedModel("YaRN with a logarithmic multiplier is not supported")
    fast = header.get_float(header.key("rope.scaling.yarn_beta_fast"), 32.0)
    slow = header.get_float(header.key("rope.scaling.yarn_beta_slow"), 1.0)
    if not fast > slow > 0:
        raise UnsupportedModel(f"YaRN from {fast} to {slow} turns makes no sense")
    return Yarn(_original_context(header, context), fast, slow)


def _original_context(header: GGUF, context: int) -> int:
    return positive(header, "rope.scaling.original_context_length", context)


def _experts(header: GGUF) -> tuple[int, int]:
    """How many experts each MLP has, and how many of them a token sees."""
    experts = header.get_int(header.key("expert_count"))
    found = any("ffn_gate_inp" in name for name in header.tensors)
    if not experts and not found:
        return 0, 0
    used = header.get_int(header.key("expert_used_count"))
    if not 0 < used <= experts:
        raise UnsupportedModel(f"{used} of {experts} experts make no sense")
    return experts, used


def _windows(header: GGUF, family: Family, layers: int) -> tuple[bool, ...]:
    """Which layers see a window only: as the file says, else all but the last of each period."""
    if not family.window_period:
        return (False,) * layers
    key = header.key("attention.sliding_window_pattern")
    listed = header.get_list(key)
    if listed:
        if len(listed) < layers:
            raise UnsupportedModel(f"{key} has {len(listed)} entries for {layers} layers")
        return tuple(bool(entry) for entry in listed[:layers])
    period = header.get_int(key, family.window_period)
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
