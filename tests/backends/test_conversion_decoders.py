"""SmolLM2 and Gemma 3 the long way round: GGUF, checkpoint, GGUF; and what the two do not have.

That the way is the right one, and not the same mistake there and back: transformers itself was asked
once. Small random models of every family and every rope scaling here, saved by transformers 5.23 and
converted, gave its logits in llama.cpp with a cosine of 0.99998 and more at each of 50 positions.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import (
    GEMMA3,
    LLAMA,
    SMALL,
    Values,
    dequantised,
    halves,
    renamed,
    small_tensors,
    write_safetensors,
    write_shards,
    write_small,
    write_tokenizer_json,
    write_tokenizer_model,
)
from pytorch_oracle import Oracle

from lhama.backends.conversion import model
from lhama.plugins import gguf
from lhama.plugins.backend import UnsupportedModel
from lhama.plugins.gguf import GGUF

import torch  # isort: skip - llama.cpp's library comes first

SMOLLM2 = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "num_hidden_layers": 30,
    "rms_norm_eps": 1e-5,
    "rope_theta": 100000,
    "rope_scaling": None,
    "max_position_embeddings": 8192,
    "vocab_size": 49152,
    "tie_word_embeddings": True,
}
GEMMA = {
    "architectures": ["Gemma3ForCausalLM"],
    "hidden_size": 640,
    "intermediate_size": 2048,
    "num_attention_heads": 4,
    "num_key_value_heads": 1,
    "num_hidden_layers": 18,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1000000,
    "max_position_embeddings": 32768,
    "sliding_window": 512,
    "head_dim": 256,
    "eos_token_id": 1,
}
WORDS = 16_384
"""Of Gemma's vocabulary, this much is enough to speak."""


def convert(folder: Path, target: Path) -> GGUF:
    model.convert(folder, target, lambda share, note: None)
    return gguf.read(target, vocabulary=True)


def tensor(header: GGUF, name: str) -> Values:
    found = header.tensors[name]
    kind = {"F32": np.float32, "F16": np.float16, "BF16": np.uint16}[found.type_name]
    values = np.fromfile(header.path, kind, found.elements, offset=found.offset)
    return values.reshape(found.shape[::-1])


@pytest.fixture(scope="module")
def originals(smollm2: Path) -> dict[str, Values]:
    """SmolLM2's own tensors: matrices in float16."""
    return {n: v if v.ndim == 1 else v.astype(np.float16) for n, v in dequantised(smollm2)}


@pytest.fixture(scope="module")
def smol(
    smollm2: Path, originals: dict[str, Values], tmp_path_factory: pytest.TempPathFactory
) -> GGUF:
    folder = tmp_path_factory.mktemp("smollm2")
    tensors = {}
    for name, values in originals.items():
        heads = {"attn_q": 9, "attn_k": 3}.get(name.split(".")[-2])
        tensors[renamed(name, LLAMA)] = halves(values, heads) if heads else values
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]
    write_shards(folder, tensors, "F16")
    write_tokenizer_json(folder, gguf.read(smollm2, vocabulary=True))
    (folder / "config.json").write_text(json.dumps(SMOLLM2))
    return convert(folder, folder / "smollm2.gguf")


@pytest.fixture(scope="module")
def gemma(gemma3: Path, tmp_path_factory: pytest.TempPathFactory) -> GGUF:
    folder = tmp_path_factory.mktemp("gemma3")
    tensors = {}
    for name, values in dequantised(gemma3, WORDS):
        tensors[renamed(name, GEMMA3)] = values - 1 if name.endswith("norm.weight") else values
    write_safetensors(folder / "model.safetensors", tensors, "BF16")
    write_tokenizer_model(folder, gguf.read(gemma3, vocabulary=True))
    (folder / "config.json").write_text(json.dumps({**GEMMA, "vocab_size": WORDS}))
    return convert(folder, folder / "gemma3.gguf")


# ----------------------------------------------------------------------------------- the llama

NOT_IN_A_CHECKPOINT = ("general.", "tokenizer.ggml.add_bos_token")


def test_smollm2_says_the_same_of_itself(smol: GGUF, smollm2: Path) -> None:
    original = gguf.read(smollm2, vocabulary=True)
    for key, value in original.metadata.items():
        if not key.startswith(NOT_IN_A_CHECKPOINT):
            assert smol.metadata[key] == value, key
            assert smol.types[key] == original.types[key], key
    assert smol.metadata["general.file_type"] == 1


def test_smollm2_has_the_same_tensors(smol: GGUF, originals: dict[str, Values]) -> None:
    for name, values in originals.items():
        found = tensor(smol, name)
        np.testing.assert_array_equal(found, values.astype(np.float16).astype(found.dtype))
        assert found.dtype == values.dtype
    assert set(originals) == set(smol.tensors), "the tied output is not there twice"


def test_smollm2_thinks_the_same(smol: GGUF, smollm2: Path) -> None:
    tokens = [1, 4093, 198, 1780, 314, 260, 3575, 282, 4649, 47, 2, 198, 1, 520, 9531, 198]
    compare(smollm2, Path(smol.path), tokens, 49152)


def compare(original: Path, converted: Path, tokens: list[int], words: int) -> None:
    """Logits at each position: the way round loses no more than quantised products do."""
    found = []
    for path in (original, converted):
        oracle = Oracle(path, 64)
        found.append(oracle.logits(tokens)[:, :words])
        oracle.close()
    close = torch.cosine_similarity(found[0], found[1], dim=1)
    assert close.min() > 0.99
    assert (found[0].argmax(1) == found[1].argmax(1)).float().mean() > 0.8


# ------------------------------------------------------------------------------------ the gemma


def test_gemma_says_the_same_of_itself(gemma: GGUF, gemma3: Path) -> None:
    original = gguf.read(gemma3, vocabulary=True)
    for key, value in original.metadata.items():
        if key.startswith("gemma3.") or key.endswith(
            ("_token_id", "space_prefix", "add_bos_token")
        ):
            assert gemma.metadata[key] == value, key
    for key in ("tokens", "scores", "token_type"):
        key = f"tokenizer.ggml.{key}"
        assert gemma.metadata[key] == original.get_list(key)[:WORDS], key
    assert gemma.metadata["tokenizer.ggml.model"] == "llama"


def test_gemma_has_the_same_tensors(gemma: GGUF, gemma3: Path) -> None:
    for name, values in dequantised(gemma3, WORDS):
        found = tensor(gemma, name)
        if values.ndim == 1:
            # A norm was stored as bfloat16 less one.
            np.testing.assert_allclose(found, values, rtol=0, atol=0.01 * np.abs(values).max())
        else:
            bits = (values.view(np.uint32) >> 16).astype(np.uint16)
            np.testing.assert_array_equal(found, bits)
    assert {t.type_name for t in gemma.tensors.values()} == {"F32", "BF16"}


def test_gemma_thinks_the_same(gemma: GGUF, gemma3: Path) -> None:
    compare(gemma3, Path(gemma.path), [2, 818, 5279, 529, 7001, 563], WORDS)


# --------------------------------------------------------------------- what the two do not have


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A folder with a llama of random numbers and forty tokens; its config is ``SMALL``."""
    return write_small(tmp_path / "small")


def configure(folder: Path, **changes: Any) -> None:
    (folder / "config.json").write_text(json.dumps({**SMALL, **changes}))


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_an_output_of_its_own_is_kept(small: Path) -> None:
    assert "output.weight" in convert(small, small / "x.gguf").tensors


def test_tokens_without_a_name_are_padding(small: Path) -> None:
    header = convert(small, small / "x.gguf")
    tokens, types = (header.get_list(f"tokenizer.ggml.{k}") for k in ("tokens", "token_type"))
    assert len(tokens) == len(types) == 40
    assert (tokens[28], types[28]) == ("<|end|>", 3)
    assert (tokens[39], types[39]) == ("[PAD39]", 5)
    assert header.metadata["tokenizer.ggml.pre"] == "gpt-2"
    assert header.metadata["tokenizer.ggml.merges"] == ["a b", "ab c"]


def test_several_ends_of_a_turn(small: Path) -> None:
    (small / "tokenizer_config.json").write_text('{"eos_token": "abc"}')
    (small / "generation_config.json").write_text('{"eos_token_id": [27, 28]}')
    header = convert(small, small / "x.gguf")
    assert header.metadata["tokenizer.ggml.eos_token_id"] == 27
    assert header.metadata["tokenizer.ggml.eot_token_id"] == 28


def test_a_chat_template_of_its_own_file(small: Path) -> None:
    (small / "chat_template.jinja").write_text("{{ messages }}")
    header = convert(small, small / "x.gguf")
    assert header.metadata["tokenizer.chat_template"] == "{{ messages }}"


def test_sentencepiece_saved_as_merges(small: Path) -> None:
    vocab = {"<unk>": 0, "<0x0A>": 1, "▁": 2, "a": 3, "b": 4, "ab": 5, "▁ab": 6}
    model_ = {
        "type": "BPE",
        "byte_fallback": True,
        "unk_token": "<unk>",
        "vocab": vocab,
        "merges": [["a", "b"], ["▁", "ab"]],
    }
    added = [{"id": 0, "content": "<unk>", "special": True}]
    normalizer = {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}]}
    edit(small / "tokenizer.json", model=model_, added_tokens=added, normalizer=normalizer)
    header = convert(small, small / "x.gguf")
    assert header.metadata["tokenizer.ggml.model"] == "llama"
    assert header.get_list("tokenizer.ggml.scores")[:7] == [-1000, 0, 0, 0, 0, -1, -2]
    assert header.get_list("tokenizer.ggml.token_type")[:7] == [2, 6, 1, 1, 1, 1, 1]
    assert header.metadata["tokenizer.ggml.add_space_prefix"] is True
    oracle = Oracle(Path(header.path), 64)
    assert torch.isfinite(oracle.logits([3, 4])).all(), "llama.cpp runs it"
    oracle.close()


def test_biases_are_turned_like_their_matrices(small: Path) -> None:
    tensors = small_tensors()
    tensors["model.layers.0.self_attn.q_proj.bias"] = np.arange(64, dtype=np.float32)
    tensors["model.layers.1.self_attn.q_proj.bias"] = np.arange(64, dtype=np.float32)
    write_safetensors(small / "model.safetensors", tensors, "F32")
    bias = tensor(convert(small, small / "x.gguf"), "blk.0.attn_q.bias")
    assert bias[:4].tolist() == [0, 8, 1, 9]


def test_linear_scaling(small: Path) -> None:
    configure(small, rope_scaling={"type": "linear", "factor": 4.0}, rope_theta=5000.0)
    header = convert(small, small / "x.gguf")
    assert header.metadata["llama.rope.scaling.type"] == "linear"
    assert header.metadata["llama.rope.scaling.factor"] == 4.0
    assert header.metadata["llama.rope.freq_base"] == 5000.0


def test_yarn(small: Path) -> None:
    scaling = {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 64}
    configure(small, rope_parameters={**scaling, "beta_fast": 16.0, "rope_theta": 7.0})
    header = convert(small, small / "x.gguf")
    assert header.metadata["llama.rope.scaling.type"] == "yarn"
    assert header.metadata["llama.rope.scaling.original_context_length"] == 64
    assert header.metadata["llama.rope.scaling.yarn_beta_fast"] == 16.0
    assert header.metadata["llama.rope.freq_base"] == 7.0


def test_llama3_scaling_is_a_tensor(small: Path) -> None:
    """Frequencies by the formula of transformers, computed the other way about."""
    scaling = {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    }
    configure(small, rope_scaling=scaling, rope_theta=10000.0, head_dim=16)
    found = tensor(convert(small, small / "x.gguf"), "rope_freqs.weight")
    expected = []
    for pair in range(8):
        frequency = 10000.0 ** (-pair / 8)
        wavelength = 2 * np.pi / frequency
        if wavelength < 64 / 4:
            scaled = frequency
        elif wavelength > 64 / 1:
            scaled = frequency / 8
        else:
            smooth = (64 / wavelength - 1) / (4 - 1)
            scaled = (1 - smooth) * frequency / 8 + smooth * frequency
        expected.append(frequency / scaled)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert found[0] == 1
    assert found[-1] == 8


def test_qwen3_is_not_turned(small: Path) -> None:
    tensors = small_tensors()
    for layer in range(2):
        for part in "qk":
            name = f"model.layers.{layer}.self_attn.{part}_norm.weight"
            tensors[name] = np.ones(16, np.float32)
    write_safetensors(small / "model.safetensors", tensors, "F16")
    configure(small, architectures=["Qwen3ForCausalLM"], head_dim=16)
    header = convert(small, small / "x.gguf")
    assert header.architecture == "qwen3"
    source = tensors["model.layers.0.self_attn.q_proj.weight"].astype(np.float16)
    np.testing.assert_array_equal(tensor(header, "blk.0.attn_q.weight"), source)
    oracle = Oracle(Path(header.path), 64)
    assert torch.isfinite(oracle.logits([3, 4])).all(), "llama.cpp runs it"
    oracle.close()


def test_gemma_with_an_eye_keeps_its_words(small: Path) -> None:
    tensors = {f"language_model.{n}": v for n, v in small_tensors().items() if "lm_head" not in n}
    for layer in range(2):
        for part, size in (("q", 16), ("k", 16)):
            name = f"language_model.model.layers.{layer}.self_attn.{part}_norm.weight"
            tensors[name] = np.zeros(size, np.float32)
        for place in ("pre", "post"):
            name = f"language_model.model.layers.{layer}.{place}_feedforward_layernorm.weight"
            tensors[name] = np.zeros(64, np.float32)
    tensors["vision_tower.vision_model.embeddings.patch_embedding.weight"] = np.zeros((2, 2), "f4")
    tensors["multi_modal_projector.mm_soft_emb_norm.weight"] = np.zeros(2, np.float32)
    write_safetensors(small / "model.safetensors", tensors, "F32")
    text = {key: value for key, value in SMALL.items() if key != "architectures"}
    text |= {"head_dim": 16, "sliding_window": 32, "rope_scaling": {"type": "linear", "factor": 8}}
    config = {"architectures": ["Gemma3ForConditionalGeneration"], "text_config": text}
    (small / "config.json").write_text(json.dumps(config))
    header = convert(small, small / "x.gguf")
    assert header.architecture == "gemma3"
    assert header.metadata["gemma3.attention.sliding_window"] == 32
    assert header.metadata["gemma3.rope.scaling.factor"] == 8.0
    assert header.metadata["gemma3.rope.freq_base_swa"] == 10000.0
    assert tensor(header, "blk.1.attn_q_norm.weight").tolist() == [1.0] * 16
    assert len(header.tensors) == 2 + 2 * 13


def drop(name: str) -> Any:
    def change(folder: Path) -> None:
        tensors = {n: v for n, v in small_tensors().items() if n != name}
        write_safetensors(folder / "model.safetensors", tensors, "F32")

    return change


def replace_tensor(name: str, values: Values) -> Any:
    def change(folder: Path) -> None:
        write_safetensors(folder / "model.safetensors", {**small_tensors(), name: values}, "F32")

    return change


def tokenizer(**changes: Any) -> Any:
    return lambda folder: edit(folder / "tokenizer.json", **changes)


def config(**changes: Any) -> Any:
    return lambda folder: configure(folder, **changes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (config(architectures=["FooForCausalLM"]), 'unsupported architecture "FooForCausalLM"'),
        (config(architectures=[]), "unknown architecture"),
        (config(architectures="Llama"), "architectures must be a list of strings"),
        (config(hidden_size="64"), "hidden_size must be a number from 0 on, not '64'"),
        (config(hidden_size=None), "config.json has no hidden_size"),
        (config(rms_norm_eps=True), "rms_norm_eps must be a number"),
        (config(num_attention_heads=5), "64 rows do not divide into the halves of 5 heads"),
        (config(num_attention_heads=0), "rows do not divide"),
        (config(num_hidden_layers=3), "the checkpoint lacks blk.2."),
        (config(num_local_experts=8), "models with experts are not converted yet"),
        (config(rope_scaling={"type": "longrope"}), "longrope is not supported"),
        (config(rope_scaling=7), "rope_scaling must be an object"),
        (drop("model.embed_tokens.weight"), "the checkpoint has no token embedding"),
        (drop("model.layers.1.mlp.up_proj.weight"), "the checkpoint lacks blk.1.ffn_up.weight"),
        (replace_tensor("model.layers.0.what.weight", np.zeros(4)), "has no place"),
        (
            replace_tensor("model.layers.0.mlp.up_proj.weight", np.full((96, 64), 1e6)),
            "values that F16 cannot hold",
        ),
        (tokenizer(model=None), "tokenizer.json has no model"),
        (tokenizer(model={"type": "Unigram"}), "type Unigram is not supported here"),
        (tokenizer(model={"type": "BPE", "vocab": {"a": -1}}), "the impossible id -1"),
        (tokenizer(model={"type": "BPE", "vocab": {"a": 1 << 30}}), "the impossible id"),
        (tokenizer(model={"type": "BPE", "vocab": {"a": 0}}), "tokenizer.json has no merges"),
        (tokenizer(added_tokens=[{"id": "x"}]), "a token in added_tokens has no id and text"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "unknown tokenizer format"),
        (
            lambda folder: (folder / "tokenizer.json").rename(folder / "tokenizer.model"),
            "tokenizer.model cannot be read",
        ),
        (lambda folder: (folder / "config.json").write_text("{"), "config.json is not valid JSON"),
        (lambda folder: (folder / "config.json").unlink(), "open config.json: no such file"),
        (lambda folder: (folder / "model.safetensors").unlink(), "unknown tensor format"),
    ],
)
def test_what_cannot_be_converted_is_said_in_words(small: Path, change: Any, message: str) -> None:
    change(small)
    with pytest.raises(UnsupportedModel) as refused:
        convert(small, small / "x.gguf")
    assert message in str(refused.value)
