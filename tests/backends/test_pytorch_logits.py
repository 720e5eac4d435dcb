"""The PyTorch backend computes what llama.cpp computes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from llamacpp_core import Core, Stream
from pytorch_models import EXPERTS, EXPERTS_USED, HEAD_DIM, HEADS, KV_HEADS, VOCAB, WIDTH, tiny
from pytorch_oracle import Oracle

from lhama.backends.llamacpp.backend import LlamaCppBackend
from lhama.backends.pytorch.backend import PyTorchBackend
from lhama.backends.pytorch.engine import PyTorchEngine
from lhama.plugins.backend import Engine, LoadOptions, ModelFiles, Row, StepPlan

import torch  # isort: skip - llama.cpp's library comes first

TEXT = """The lighthouse keeper's daughter counted seven ships before breakfast. "Three are ours,"
she said, "and the other four fly flags I have never seen." Her father climbed the stairs -
all 184 of them - and looked through the long brass telescope that his grandfather had bought in
Lisbon in 1871. def ships(n): return [s for s in range(n) if s % 2 == 0]. On the horizon, a
thin grey line of smoke rose straight into the windless air; it would be a hot day. The price of
coal had risen to $14.50 per ton, and nobody in the village could say why. Por la tarde llegó
una carta: « Nous arrivons demain à midi ». The daughter read it twice, folded it into a small
paper boat, and set it on the water. It sailed further than anyone expected.
"""

PROMPTS = [
    "The capital of France is",
    "Once upon a time, in a small village by the sea,",
    "def fibonacci(n):\n    ",
    "The three most important inventions of the twentieth century are",
    "Water boils at",
    "Dear Sir or Madam,\n\nI am writing to",
    "Q: What is the largest planet in the solar system?\nA:",
    "The recipe needs two eggs, a cup of flour and",
    "In 1969, Neil Armstrong",
    "Roses are red, violets are blue,",
]


def loaded(path: Path, slots: int = 1, context: int = 512) -> PyTorchEngine:
    engine = PyTorchBackend().load(
        ModelFiles(path.stem, str(path)),
        LoadOptions(slots=slots, context=context, batch=512, threads=1),
        lambda share, what: None,
    )
    assert isinstance(engine, PyTorchEngine)
    return engine


def logits(engine: PyTorchEngine, tokens: Sequence[int]) -> torch.Tensor:
    """What the engine's model says at each position, float32 [tokens, vocab]."""
    row = Row(0, 1, 0, tuple(tokens), sample=False)
    batch = engine.prepare_next(StepPlan(0, (row,)), None).batch
    with torch.inference_mode():
        return engine._model.logits(engine._model.forward(batch, batch.ids, engine._cache))


YARN = {
    "rope.scaling.type": "yarn",
    "rope.scaling.factor": 4.0,
    "rope.scaling.original_context_length": 128,
}
MIXED = {"expert_count": EXPERTS, "expert_used_count": EXPERTS_USED}
STRETCHED = {"rope.dimension_count": 32, "rope.scaling.attn_factor": 1.19}
FACTORS = {f"rope_factors_{kind}.weight": (HEAD_DIM // 2,) for kind in ("long", "short")}

VARIANTS: dict[str, tuple[str, dict[str, Any], dict[str, tuple[int, ...]]]] = {
    "llama": ("llama", {}, {}),
    "llama-untied": ("llama", {}, {"output.weight": (WIDTH, VOCAB)}),
    "llama-linear-rope": (
        "llama",
        {"rope.scaling.type": "linear", "rope.scaling.factor": 4.0, "rope.freq_base": 500000.0},
        {},
    ),
    "llama-3-rope": ("llama", {}, {"rope_freqs.weight": (HEAD_DIM // 2,)}),
    "llama-biases": (
        "llama",
        {},
        {
            f"blk.{layer}.attn_{name}.bias": (size,)
            for layer in range(7)
            for name, size in (
                ("q", HEADS * HEAD_DIM),
                ("k", KV_HEADS * HEAD_DIM),
                ("v", KV_HEADS * HEAD_DIM),
                ("output", WIDTH),
            )
        },
    ),
    "qwen2": (
        "qwen2",
        {},
        {
            f"blk.{layer}.attn_{name}.bias": (size,)
            for layer in range(7)
            for name, size in (
                ("q", WIDTH),
                ("k", KV_HEADS * HEAD_DIM),
                ("v", KV_HEADS * HEAD_DIM),
            )
        },
    ),
    "qwen3": ("qwen3", {"rope.freq_base": 1000000.0}, {}),
    "llama-yarn": ("llama", YARN, {}),
    "llama-yarn-stronger": ("llama", YARN | {"rope.scaling.attn_factor": 1.2}, {}),
    "mixtral": ("llama", MIXED, {}),
    "qwen3moe": ("qwen3moe", MIXED, {}),
    "phi3": ("phi3", {}, {}),
    "phi3-partial": ("phi3", {"rope.dimension_count": 24}, {}),
    "phi3-short": ("phi3", STRETCHED | {"rope.scaling.original_context_length": 512}, FACTORS),
    "phi3-long": ("phi3", STRETCHED | {"rope.scaling.original_context_length": 64}, FACTORS),
    "gemma2": ("gemma2", {}, {}),
    "gemma2-softcaps": (
        "gemma2",
        {"attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0},
        {},
    ),
    "gemma3": ("gemma3", {}, {}),
    "gemma3-softcap": ("gemma3", {"final_logit_softcapping": 5.0}, {}),
    "gemma3-pattern": ("gemma3", {"attention.sliding_window_pattern": 3}, {}),
    "gemma3-local-base": ("gemma3", {"rope.freq_base": 1e6, "rope.freq_base_swa": 500.0}, {}),
    "gemma3-scaled": ("gemma3", {"rope.scaling.factor": 8.0}, {}),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_float32_weights_give_llama_cpps_logits(variant: str, tmp_path: Path) -> None:
    """With float32 weights llama.cpp rounds nothing but GELU's argument, which it looks up in a
    table of float16; all else is float32's noise. 97 tokens: six windows of the sliding layers."""
    family, metadata, extra = VARIANTS[variant]
    path = tiny(tmp_path / "tiny.gguf", family, metadata=metadata, extra=extra)
    tokens = [1, *[3 + 37 * index % 250 for index in range(96)]]
    oracle, engine = Oracle(path, 128), loaded(path, context=128)
    theirs, ours = oracle.logits(tokens), logits(engine, tokens)
    oracle.close()
    engine.close()
    assert theirs.std() > 0.5
    tolerance = 2e-2 if "gemma" in family else 2e-3
    torch.testing.assert_close(ours, theirs, atol=tolerance, rtol=1e-3)


@pytest.mark.parametrize("name", ["smollm2", "gemma3"])
def test_real_models_predict_as_in_llama_cpp(name: str, request: pytest.FixtureRequest) -> None:
    """Teacher-forced over a text. llama.cpp rounds activations to 8 bits before each product with
    a quantised matrix, PyTorch computes in float32: single logits differ by a few tenths, a
    distribution by about what Q8_0 against F16 gives a model of this size, and neither predicts
    the text better."""
    path: Path = request.getfixturevalue(name)
    oracle, engine = Oracle(path, 512), loaded(path)
    tokens = engine.tokenizer.encode(TEXT, add_special=True, parse_special=False)[:256]
    assert len(tokens) > 180
    ours = logits(engine, tokens).log_softmax(-1)
    theirs = oracle.logits(tokens).log_softmax(-1)
    engine.close()
    oracle.close()
    divergence = (ours.exp() * (ours - theirs)).sum(-1)
    agreement = (ours.argmax(-1) == theirs.argmax(-1)).float().mean().item()
    error = (ours - theirs).abs().mean().item()
    rest = torch.tensor(tokens[1:]).unsqueeze(1)
    loss = [-side[:-1].gather(1, rest).mean().item() for side in (ours, theirs)]
    print(
        f"{name}: {len(tokens)} tokens, KL mean {divergence.mean():.5f} max {divergence.max():.4f}, "
        f"same first {agreement:.1%}, log-probability error {error:.3f}, "
        f"loss {loss[0]:.4f} and {loss[1]:.4f}"
    )
    assert divergence.mean() < 0.01
    assert divergence.max() < 0.3
    assert agreement > 0.9
    assert abs(loss[0] - loss[1]) < 0.02


COUNT = 64
NEAR = 0.5
"""Two logits nearer than this may change places between 8-bit and float32 activations: about
three times the mean error of a single logit."""


@pytest.mark.parametrize("name", ["smollm2", "gemma3"])
def test_greedy_text_is_llama_cpps_but_for_near_ties(
    name: str, request: pytest.FixtureRequest
) -> None:
    """Every token of llama.cpp's greedy texts is PyTorch's first choice behind the same text, or
    all but tied with it. Where it is not, the texts split: the splits are printed."""
    path: Path = request.getfixturevalue(name)
    other: Engine = LlamaCppBackend().load(
        ModelFiles(name, str(path)),
        LoadOptions(slots=len(PROMPTS), context=128, threads=1),
        lambda share, what: None,
    )
    prompts = [other.tokenizer.encode(p, add_special=True, parse_special=True) for p in PROMPTS]
    texts = Core(other).run(*[Stream(i, p, COUNT) for i, p in enumerate(prompts)])
    other.close()
    engine = loaded(path, context=128)
    same = agreed = 0
    for prompt, text in zip(prompts, texts, strict=True):
        said = logits(engine, [*prompt, *text[:-1]])[-COUNT:]
        best = said.argmax(-1)
        token = torch.tensor(text)
        gaps = (said.gather(1, best[:, None]) - said.gather(1, token[:, None])).squeeze(1)
        same += bool((best == token).all())
        agreed += int((best == token).sum())
        for at in (best != token).nonzero().flatten().tolist()[:1]:
            pair = [engine.tokenizer.piece(t) for t in (int(best[at]), text[at])]
            print(f"{name}: split at token {at} between {pair}, {gaps[at]:.3f} apart")
        assert gaps.max() < NEAR
    engine.close()
    print(f"{name}: {same} texts of {len(PROMPTS)} and {agreed} tokens of {COUNT * len(PROMPTS)}")
    assert agreed > 0.95 * COUNT * len(PROMPTS)
